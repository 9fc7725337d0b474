"""What a developer reads when the platform is ready."""

from millrace_devstack import state


def welcome(home: state.Home, keys: state.Keys, *, base_url: str, bootstrap: str, seconds: float) -> str:
    """Addresses, keys, a first request, and what to do next."""
    return f"""
Millrace is ready after {seconds:.1f} s at {base_url}

  API reference  {base_url}/docs
  a form         {base_url}/forms/demo   (what is filled in is an event; its id: GET /api/v1/intake-bots)
  Kafka          {bootstrap}
  addresses, pids, metrics and keys: {home.dev_json}

  keys of the demo account
    ingest       {keys["ingest"]}
    automation   {keys["automation"]}
    intake       {keys["intake"]}
    agents       {keys["agents"]}   test {keys["agents_test"]}
    ops          {keys["ops"]["public"]}   secret {keys["ops"]["secret"]}

Send an event:

  curl -s {base_url}/ingest/event/publish \\
    -H 'Authorization: Bearer {keys["ingest"]}' -H 'Content-Type: application/json' \\
    -d '{{"eventType": {{"provider": "custom", "name": "user-signup"}}, "properties": {{"plan": "pro"}}}}'

`make demo` in a second terminal sends real input through all of it. Ctrl-C stops everything; what was stored stays
in {home.path} until `make clean`.
"""
