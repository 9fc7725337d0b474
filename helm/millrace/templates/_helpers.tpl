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
