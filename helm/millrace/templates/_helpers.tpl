{{- define "millrace.name" -}}
{{- if contains "millrace" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-millrace" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "millrace.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "millrace.secret" -}}
{{ .Values.secrets.existing | default (printf "%s-secrets" (include "millrace.name" .)) }}
{{- end }}

{{/* The broker's name for a catalogue name, as millrace_kafka.topics makes it: (list $ "events") */}}
{{- define "millrace.topic" -}}
{{- $root := index . 0 -}}
millrace.{{ with $root.Values.kafka.namespace }}{{ . }}.{{ end }}{{ index . 1 }}.v1
{{- end }}

{{/* The broker's name for a consumer group: (list $ "matcher") */}}
{{- define "millrace.group" -}}
{{- $root := index . 0 -}}
millrace.{{ with $root.Values.kafka.namespace }}{{ . }}.{{ end }}{{ index . 1 }}
{{- end }}

{{/* What never changes for an object's life: (list $ "gateway") */}}
{{- define "millrace.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: millrace
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "millrace.labels" -}}
{{- $root := index . 0 -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{- define "millrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "millrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "millrace.env" -}}
- {name: MILLRACE_KAFKA, value: {{ required "kafka.bootstrap is required: the address of your Kafka" .Values.kafka.bootstrap | quote }}}
- {name: MILLRACE_NAMESPACE, value: {{ .Values.kafka.namespace | quote }}}
- {name: MILLRACE_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
{{- with .Values.kafka.security }}
- {name: MILLRACE_KAFKA_PROTOCOL, value: {{ .protocol | quote }}}
{{- if hasPrefix "sasl" .protocol }}
- {name: MILLRACE_KAFKA_MECHANISM, value: {{ .mechanism | quote }}}
- {name: MILLRACE_KAFKA_USERNAME, value: {{ required "kafka.security.username is required with SASL" .username | quote }}}
{{- end }}
{{- if .ca.secret }}
- {name: MILLRACE_KAFKA_CA, value: /etc/millrace/kafka-ca/ca.crt}
{{- end }}
{{- if .client.secret }}
- {name: MILLRACE_KAFKA_CERTIFICATE, value: /etc/millrace/kafka-client/tls.crt}
- {name: MILLRACE_KAFKA_KEY, value: /etc/millrace/kafka-client/tls.key}
{{- end }}
{{- end }}
{{- end }}

{{/* The secrets a pod is given as files, Kafka's password among them where it has one: (list $ (list "postgres")).
`limits` only where there is one. */}}
{{- define "millrace.secretsOf" -}}
{{- $root := index . 0 -}}
{{- $names := index . 1 | default list -}}
{{- if not $root.Values.limits.shared }}{{ $names = without $names "limits" }}{{ end -}}
{{- if hasPrefix "sasl" $root.Values.kafka.security.protocol }}{{ $names = append $names "kafka_password" }}{{ end -}}
{{- join "," $names -}}
{{- end }}

{{- define "millrace.mounts" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.kafka.security }}
{{- if .ca.secret }}
- {name: kafka-ca, mountPath: /etc/millrace/kafka-ca, readOnly: true}
{{- end }}
{{- if .client.secret }}
- {name: kafka-client, mountPath: /etc/millrace/kafka-client, readOnly: true}
{{- end }}
{{- end }}
{{- if include "millrace.secretsOf" . }}
- {name: secrets, mountPath: /run/secrets, readOnly: true}
{{- end }}
{{- end }}

{{- define "millrace.volumes" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.kafka.security }}
{{- if .ca.secret }}
- name: kafka-ca
  secret: {secretName: {{ .ca.secret }}, defaultMode: 0440, items: [{key: {{ .ca.key }}, path: ca.crt}]}
{{- end }}
{{- if .client.secret }}
- name: kafka-client
  secret:
    secretName: {{ .client.secret }}
    defaultMode: 0440
    items: [{key: {{ .client.certificate }}, path: tls.crt}, {key: {{ .client.key }}, path: tls.key}]
{{- end }}
{{- end }}
{{- with include "millrace.secretsOf" . }}
{{ include "millrace.secretVolume" (list $root (splitList "," .)) }}
{{- end }}
{{- end }}

{{/* Secrets as files, only those named: (list $ (list "postgres")) */}}
{{- define "millrace.secretVolume" -}}
{{- $root := index . 0 -}}
- name: secrets
  secret:
    secretName: {{ include "millrace.secret" $root }}
    defaultMode: 0440
    items:
      {{- range index . 1 }}
      - {key: millrace_{{ . }}, path: millrace_{{ . }}}
      {{- end }}
{{- end }}
