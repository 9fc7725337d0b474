"""Pages for people, without a key: a form that is published, to be filled in. Plain HTML, no JavaScript."""
