-- What a page was shown with makes what is sent from it one submission, however often it is sent.
ALTER TABLE control.submissions ADD COLUMN nonce text;
CREATE UNIQUE INDEX ON control.submissions (account, form, nonce) WHERE nonce IS NOT NULL;
COMMENT ON COLUMN control.submissions.nonce IS 'of the page it was sent from; null = it came another way';
