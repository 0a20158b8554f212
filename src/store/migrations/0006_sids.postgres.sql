-- A vendor's id of a call is unique within its tenant: an account of another tenant may say anything.

ALTER TABLE phone_calls DROP CONSTRAINT phone_calls_vendor_call_sid_key;
DROP INDEX phone_calls_by_sid;
ALTER TABLE phone_calls ADD UNIQUE (tenant_id, call_sid, vendor);
