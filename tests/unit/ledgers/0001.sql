BEGIN TRANSACTION;
CREATE TABLE entries (
	component VARCHAR(63) NOT NULL, 
	sequence INTEGER NOT NULL, 
	at VARCHAR(40) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	actor TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	stage VARCHAR(32), 
	version INTEGER, 
	from_version INTEGER, 
	baseline VARCHAR(64) NOT NULL, 
	evidence TEXT NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (component, sequence), 
	UNIQUE ("key")
);
INSERT INTO "entries" VALUES('digits',1,'2026-01-01T00:01:00.000000+00:00','registered','person:ada','registered “as it should be”','digits/1/registered',NULL,1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','0000000000000000000000000000000000000000000000000000000000000000','c51b8500af49c8d7ad835302df08ed4dd55a43a6b327e2d911a1c07acf3f8226');
INSERT INTO "entries" VALUES('digits',2,'2026-01-01T00:02:00.000000+00:00','gated','person:ada','gated “as it should be”','digits/1/gated',NULL,1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','c51b8500af49c8d7ad835302df08ed4dd55a43a6b327e2d911a1c07acf3f8226','c2045a4a5896cd930f8aa19b252d79631009228b45930a2a5da9e818c398616f');
INSERT INTO "entries" VALUES('digits',3,'2026-01-01T00:03:00.000000+00:00','accepted','person:ada','accepted “as it should be”','digits/1/accepted',NULL,1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','c2045a4a5896cd930f8aa19b252d79631009228b45930a2a5da9e818c398616f','a10b40207000bba7b4e3b1e0a6fc64426c648407d6d2df94d3f327bf0938be81');
INSERT INTO "entries" VALUES('digits',4,'2026-01-01T00:04:00.000000+00:00','promoted','person:ada','better; it''s ''quoted''','digits/promote/1','production',1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{}','a10b40207000bba7b4e3b1e0a6fc64426c648407d6d2df94d3f327bf0938be81','3bb4603a10d09b75a37832a1f9ebf7b56abea0aff62ddb0199f6713beefa6cbe');
INSERT INTO "entries" VALUES('digits',5,'2026-01-01T00:05:00.000000+00:00','registered','person:ada','registered “as it should be”','digits/2/registered',NULL,2,NULL,'2222222222222222222222222222222222222222222222222222222222222222','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','3bb4603a10d09b75a37832a1f9ebf7b56abea0aff62ddb0199f6713beefa6cbe','cdccf2a61a9d41b6fc746ad6a85289361a592ba38e3fb41ff9dcd0ba9abb5739');
INSERT INTO "entries" VALUES('digits',6,'2026-01-01T00:06:00.000000+00:00','gated','person:ada','gated “as it should be”','digits/2/gated',NULL,2,NULL,'2222222222222222222222222222222222222222222222222222222222222222','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','cdccf2a61a9d41b6fc746ad6a85289361a592ba38e3fb41ff9dcd0ba9abb5739','5db80842c8811627771cc59923f4ccdc61bb37328389954025e1a5077c746200');
INSERT INTO "entries" VALUES('digits',7,'2026-01-01T00:07:00.000000+00:00','accepted','person:ada','accepted “as it should be”','digits/2/accepted',NULL,2,NULL,'2222222222222222222222222222222222222222222222222222222222222222','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','5db80842c8811627771cc59923f4ccdc61bb37328389954025e1a5077c746200','9c4bc89feaec65c0397d3c2738f7cb3a5b58076a46eabf61723fd9e09ee06e22');
INSERT INTO "entries" VALUES('digits',8,'2026-01-01T00:08:00.000000+00:00','promoted','person:ada','better; it''s ''quoted''','digits/promote/2','production',2,1,'2222222222222222222222222222222222222222222222222222222222222222','{}','9c4bc89feaec65c0397d3c2738f7cb3a5b58076a46eabf61723fd9e09ee06e22','af7b20882819eddfa3b32ff2d5ba6044f28686d697af8132e5c5602fd29d0039');
INSERT INTO "entries" VALUES('digits',9,'2026-01-01T00:09:00.000000+00:00','rolled back','monitor','worse','digits/back','production',1,2,'1111111111111111111111111111111111111111111111111111111111111111','{}','af7b20882819eddfa3b32ff2d5ba6044f28686d697af8132e5c5602fd29d0039','a3909a5089ac501cb63fcf0dbb0ccb3c18aeb29396983beb984dde3acdb31877');
INSERT INTO "entries" VALUES('digits',10,'2026-01-01T00:09:00.000000+00:00','alarm','monitor','loud','digits/alarm',NULL,1,NULL,'','{}','a3909a5089ac501cb63fcf0dbb0ccb3c18aeb29396983beb984dde3acdb31877','8930b89bbe4eb3283797508dcad5c68e09e0df0f3e6c06f8bb9a443ed73dcd99');
INSERT INTO "entries" VALUES('news',1,'2026-01-01T00:10:00.000000+00:00','registered','person:ada','registered “as it should be”','news/1/registered',NULL,1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','0000000000000000000000000000000000000000000000000000000000000000','f2cc575d08a37ffbe4d179a21559207a84af0e7a916a4ca215af4e0587c5b054');
INSERT INTO "entries" VALUES('news',2,'2026-01-01T00:11:00.000000+00:00','gated','person:ada','gated “as it should be”','news/1/gated',NULL,1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','f2cc575d08a37ffbe4d179a21559207a84af0e7a916a4ca215af4e0587c5b054','fa408abac1aab8d0abae30f0810cf045d7d312db0a4b46761422e8dd9b74dbc8');
INSERT INTO "entries" VALUES('news',3,'2026-01-01T00:12:00.000000+00:00','accepted','person:ada','accepted “as it should be”','news/1/accepted',NULL,1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','fa408abac1aab8d0abae30f0810cf045d7d312db0a4b46761422e8dd9b74dbc8','9fbb9b6a45b216731c36437c1d8d1974c22559d3285501fe2c14cb793fd7d3e7');
INSERT INTO "entries" VALUES('news',4,'2026-01-01T00:13:00.000000+00:00','promoted','person:ada','better; it''s ''quoted''','news/promote/1','production',1,NULL,'1111111111111111111111111111111111111111111111111111111111111111','{}','9fbb9b6a45b216731c36437c1d8d1974c22559d3285501fe2c14cb793fd7d3e7','106ec9a7d361db1f9ec924768ab17edbbf3eb01b47400cd8f7f525a2bd4e01d5');
INSERT INTO "entries" VALUES('news',5,'2026-01-01T00:14:00.000000+00:00','registered','person:ada','registered “as it should be”','news/2/registered',NULL,2,NULL,'2222222222222222222222222222222222222222222222222222222222222222','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','106ec9a7d361db1f9ec924768ab17edbbf3eb01b47400cd8f7f525a2bd4e01d5','7debc990d52670867d080ede3410e3fca43adb16e7cb5a9fee299e707eb208bd');
INSERT INTO "entries" VALUES('news',6,'2026-01-01T00:15:00.000000+00:00','gated','person:ada','gated “as it should be”','news/2/gated',NULL,2,NULL,'2222222222222222222222222222222222222222222222222222222222222222','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','7debc990d52670867d080ede3410e3fca43adb16e7cb5a9fee299e707eb208bd','149b130cd95d03a7e80c32bb3cb3ae41ffd506dea87c96e25d25016596baf478');
INSERT INTO "entries" VALUES('news',7,'2026-01-01T00:16:00.000000+00:00','accepted','person:ada','accepted “as it should be”','news/2/accepted',NULL,2,NULL,'2222222222222222222222222222222222222222222222222222222222222222','{"accuracy":0.9613,"rows":500,"slices":{"α":[1,null,true]}}','149b130cd95d03a7e80c32bb3cb3ae41ffd506dea87c96e25d25016596baf478','608e33cc0fdf34ba1f3421e53aa4ff45a955f76d72adea9d9aedbfac4bf2d99c');
INSERT INTO "entries" VALUES('news',8,'2026-01-01T00:17:00.000000+00:00','promoted','person:ada','better; it''s ''quoted''','news/promote/2','production',2,1,'2222222222222222222222222222222222222222222222222222222222222222','{}','608e33cc0fdf34ba1f3421e53aa4ff45a955f76d72adea9d9aedbfac4bf2d99c','e18543259a9a7f735ac9e154e8d53af6f6e934393a4ed5cd1a17cccab743f50c');
INSERT INTO "entries" VALUES('news',9,'2026-01-01T00:18:00.000000+00:00','rolled back','monitor','worse','news/back','production',1,2,'1111111111111111111111111111111111111111111111111111111111111111','{}','e18543259a9a7f735ac9e154e8d53af6f6e934393a4ed5cd1a17cccab743f50c','08f8adf55cfd29b64c9b7fbb925df9039b4a9ab2f09f61e20da825c8bea97a18');
INSERT INTO "entries" VALUES('news',10,'2026-01-01T00:18:00.000000+00:00','alarm','monitor','loud','news/alarm',NULL,1,NULL,'','{}','08f8adf55cfd29b64c9b7fbb925df9039b4a9ab2f09f61e20da825c8bea97a18','84e423f1aa25c10cbcdec415b32fdc115d27d8a5c2407d7293a0941e7b6b8761');
CREATE TABLE heads (
	component VARCHAR(63) NOT NULL, 
	sequence INTEGER NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (component)
);
INSERT INTO "heads" VALUES('digits',10,'8930b89bbe4eb3283797508dcad5c68e09e0df0f3e6c06f8bb9a443ed73dcd99');
INSERT INTO "heads" VALUES('news',10,'84e423f1aa25c10cbcdec415b32fdc115d27d8a5c2407d7293a0941e7b6b8761');
CREATE TABLE ledger_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT ledger_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "ledger_schema" VALUES('0001');
CREATE TABLE projections (
	component VARCHAR(63) NOT NULL, 
	stage VARCHAR(32) NOT NULL, 
	sequence INTEGER NOT NULL, 
	version INTEGER, 
	is_written BOOLEAN NOT NULL, 
	PRIMARY KEY (component, stage, sequence)
);
INSERT INTO "projections" VALUES('digits','production',4,1,1);
INSERT INTO "projections" VALUES('digits','production',8,2,1);
INSERT INTO "projections" VALUES('digits','production',9,1,1);
INSERT INTO "projections" VALUES('news','production',4,1,0);
INSERT INTO "projections" VALUES('news','production',8,2,0);
INSERT INTO "projections" VALUES('news','production',9,1,0);
CREATE INDEX entries_by_stage ON entries (component, stage, sequence);
COMMIT;
