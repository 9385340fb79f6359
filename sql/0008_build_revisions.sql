-- Rises with every change of what is offered: processes look at the sum before they read all builds anew.
create sequence build_revisions;
alter table builds add column revision bigint not null default nextval('build_revisions');
