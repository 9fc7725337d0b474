-- What tickets are looked for by beside status and customer. Such a member may be any text: its beginning is enough to
-- find few, and fits an index.
CREATE INDEX entities_by_priority ON read.entities
    (account, kind, left(members -> 'priority' ->> 1, 64), created_ms DESC, id DESC) WHERE members <> '{}';
CREATE INDEX entities_by_assignee ON read.entities
    (account, kind, left(members -> 'assignee' ->> 1, 64), created_ms DESC, id DESC) WHERE members <> '{}';
CREATE INDEX entities_by_update ON read.entities (account, kind, updated_ms) WHERE members <> '{}';
