-- Version 1. Times are milliseconds since 1970; state: 0 queued, 1 running, 2 succeeded, 3 failed, 4 canceled, 5 expired.
CREATE TABLE job (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    class INTEGER NOT NULL,
    model TEXT NOT NULL,
    bucket TEXT NOT NULL,
    cost_ms INTEGER NOT NULL,
    spec TEXT NOT NULL,
    inputs TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    key TEXT,
    name TEXT,
    deadline INTEGER,
    not_before INTEGER,
    created INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0,
    vft INTEGER NOT NULL,
    owner TEXT,
    started INTEGER,
    ended INTEGER,
    ckpt TEXT,
    step INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    bytes INTEGER NOT NULL,
    kept INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 1) = (owner IS NOT NULL)),
    CHECK ((state >= 2) = (ended IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX job_key ON job (tenant, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX job_name ON job (tenant, name) WHERE name IS NOT NULL;
CREATE INDEX job_lane ON job (class, model, vft, id) WHERE state = 0;
CREATE INDEX job_bucket ON job (class, model, bucket, vft, id) WHERE state = 0;
CREATE INDEX job_owner ON job (owner) WHERE state = 1;
CREATE INDEX job_deadline ON job (deadline) WHERE state = 0 AND deadline IS NOT NULL;
CREATE INDEX job_early ON job (not_before) WHERE state = 0 AND not_before IS NOT NULL;
CREATE INDEX job_ended ON job (ended, id) WHERE state >= 2;
CREATE INDEX job_tenant ON job (tenant, id);

CREATE TABLE node (
    id TEXT NOT NULL PRIMARY KEY, expires INTEGER NOT NULL, capacity INTEGER NOT NULL, draining INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- The virtual finishing time of each tenant's last job, and of the job claimed last.
CREATE TABLE share (tenant TEXT NOT NULL, class INTEGER NOT NULL, vft INTEGER NOT NULL, PRIMARY KEY (tenant, class)) STRICT, WITHOUT ROWID;
CREATE TABLE clock (class INTEGER NOT NULL PRIMARY KEY, vft INTEGER NOT NULL) STRICT;
-- Canceled before they came.
CREATE TABLE tombstone (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, until INTEGER NOT NULL) STRICT;

-- Sums that every submission asks for: unfinished jobs of all ('') and of each tenant ('t' + name), ended ones ('e').
CREATE TABLE tally (scope TEXT NOT NULL PRIMARY KEY, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL, cost_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO tally VALUES ('', 0, 0, 0), ('e', 0, 0, 0);
CREATE TRIGGER job_comes AFTER INSERT ON job BEGIN
    UPDATE tally SET jobs = jobs + 1, bytes = bytes + NEW.bytes, cost_ms = cost_ms + NEW.cost_ms WHERE scope = '';
    INSERT INTO tally VALUES ('t' || NEW.tenant, 1, NEW.bytes, NEW.cost_ms)
        ON CONFLICT (scope) DO UPDATE SET jobs = jobs + 1, bytes = bytes + excluded.bytes, cost_ms = cost_ms + excluded.cost_ms;
END;
CREATE TRIGGER job_ends AFTER UPDATE OF state ON job WHEN OLD.state < 2 AND NEW.state >= 2 BEGIN
    UPDATE tally SET jobs = jobs - 1, bytes = bytes - OLD.bytes, cost_ms = cost_ms - OLD.cost_ms WHERE scope IN ('', 't' || OLD.tenant);
    DELETE FROM tally WHERE scope = 't' || OLD.tenant AND jobs = 0;
    UPDATE tally SET jobs = jobs + 1, bytes = bytes + NEW.kept WHERE scope = 'e';
END;
CREATE TRIGGER job_goes AFTER DELETE ON job BEGIN
    UPDATE tally SET jobs = jobs - 1, bytes = bytes - OLD.kept WHERE scope = 'e';
END;
-- One ending per job, whatever a statement says.
CREATE TRIGGER job_stays_ended BEFORE UPDATE OF state ON job WHEN OLD.state >= 2 BEGIN
    SELECT RAISE(ABORT, 'a job that has ended cannot change its state');
END;
