"""Pure rules of Millrace: ids, envelopes, matching, plans, the decider, signing, limits."""
