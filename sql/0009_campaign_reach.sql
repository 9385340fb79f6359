-- A token that several devices have is sent to once in a launch. Tokens are too long for an index, and an empty one is none.
create index devices_push_token on devices (hashtext(push_token), id) where push_token <> '' and not token_invalid;
-- Sends to browsers were counted nowhere. Last, because campaigns that run wait for it.
alter table notifications add column sent_web bigint not null default 0;
