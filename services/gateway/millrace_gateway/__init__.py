"""HTTP ingest to the events topic: the first step of a message's life. Needs Kafka and nothing else."""
