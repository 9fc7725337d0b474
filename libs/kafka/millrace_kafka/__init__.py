"""The only door to aiokafka: topics, producers, processors, lanes, control view, state store."""
