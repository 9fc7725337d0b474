"""The connectors that come with Millrace. Each folder is what an own one would be."""
