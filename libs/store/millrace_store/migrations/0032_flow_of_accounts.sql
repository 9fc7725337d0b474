-- When the runs of all subscriptions of an account may begin.
ALTER TABLE control.accounts ADD COLUMN flow text;
COMMENT ON COLUMN control.accounts.flow IS
    'JSON as it is published; null = never had one, {} = had one: its owner must hear that there is none';
