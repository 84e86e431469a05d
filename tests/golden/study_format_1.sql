BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE merge_search_candidate (
	id INTEGER NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	recipe TEXT NOT NULL, 
	origin VARCHAR(255) NOT NULL, 
	trial INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
INSERT INTO "merge_search_candidate" VALUES(0,'df56b9596a660460','{"merge": {"method": "linear", "sources": [{"of": "a", "parameters": {"weight": 1.0}}, {"of": "b", "parameters": {"weight": 0.0}}]}}','parent a',0);
INSERT INTO "merge_search_candidate" VALUES(1,'c96e3afbb3be5d07','{"merge": {"method": "linear", "sources": [{"of": "a", "parameters": {"weight": 0.0}}, {"of": "b", "parameters": {"weight": 1.0}}]}}','parent b',1);
INSERT INTO "merge_search_candidate" VALUES(2,'c0d277126fc14e82','{"merge": {"method": "linear", "sources": [{"of": "a", "parameters": {"weight": 1.0}}, {"of": "b", "parameters": {"weight": 1.0}}]}}','plain average',2);
INSERT INTO "merge_search_candidate" VALUES(3,'fba124c9e2246510','{"merge": {"method": "linear", "sources": [{"of": "a", "parameters": {"weight": 0.65}}, {"of": "b", "parameters": {"weight": 0.35}}]}}','specialist a',3);
INSERT INTO "merge_search_candidate" VALUES(4,'c60c418da7f8dbea','{"merge": {"method": "linear", "sources": [{"of": "a", "parameters": {"weight": 0.35}}, {"of": "b", "parameters": {"weight": 0.65}}]}}','specialist b',4);
INSERT INTO "merge_search_candidate" VALUES(5,'b8520fae998eef78','{"merge": {"method": "slerp", "sources": [{"of": "a"}, {"of": "b"}], "base": "a", "parameters": {"t": 0.5}}}','slerp t 0.5',5);
INSERT INTO "merge_search_candidate" VALUES(6,'f0545deb92273fba','{"merge": {"method": "linear", "sources": [{"of": "a", "parameters": {"weight": 0.696200130379308}}, {"of": "b", "parameters": {"weight": 0.6582154417217818}}]}}','random',6);
INSERT INTO "merge_search_candidate" VALUES(7,'c21fca56b2b153b6','{"merge": {"method": "slerp", "sources": [{"of": "a"}, {"of": "b"}], "base": "a", "parameters": {"t": 0.30433931932876757}}}','random',7);
CREATE TABLE merge_search_evaluation (
	candidate INTEGER NOT NULL, 
	split VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	questions INTEGER NOT NULL, 
	started FLOAT NOT NULL, 
	finished FLOAT, 
	worker VARCHAR(255) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	value FLOAT, 
	stderr FLOAT, 
	tasks TEXT NOT NULL, 
	build_seconds FLOAT, 
	score_seconds FLOAT, 
	failure_kind VARCHAR(32), 
	failure_message TEXT NOT NULL, 
	failure_detail TEXT NOT NULL, 
	asked BLOB, 
	outcomes BLOB, 
	PRIMARY KEY (candidate, split), 
	FOREIGN KEY(candidate) REFERENCES merge_search_candidate (id)
);
INSERT INTO "merge_search_evaluation" VALUES(0,'search','complete',1,8,1.79564119096635603899e+09,1795641190.97941,'local','c8f7780e8efa8a6c',0.375,1.82981263677849975701e-01,'[{"task": "one", "value": 0.375, "stderr": 0.18298126367784998, "n": 8}]',0.0,2.53707999945618212223e-04,NULL,'','',X'789CE36480001620E606627620E600624620660662000360002C',X'789C636000810FF60C5869C20000B10D038E');
INSERT INTO "merge_search_evaluation" VALUES(1,'search','complete',1,8,1.79564119107850193976e+09,1.79564119109542298319e+09,'local','b6e1fa504a5cc5b1',0.375,1.82981263677849975701e-01,'[{"task": "one", "value": 0.375, "stderr": 0.18298126367784998, "n": 8}]',0.0,2.24094000031982432119e-04,NULL,'','',X'789CE36480001620E606627620E600624620660662000360002C',X'789C636000810FF60C5869C20000B10D038E');
INSERT INTO "merge_search_evaluation" VALUES(2,'search','failed',1,8,1.79564119117194700243e+09,1.79564119117920899387e+09,'local','cd043f33c51ab93a',NULL,NULL,'[]',NULL,NULL,'error','recipe c0d277126fc14e82 fails by order of the fake''s spec','',NULL,NULL);
INSERT INTO "merge_search_evaluation" VALUES(3,'search','failed',1,8,1.79564119124971604342e+09,1.79564119126325798031e+09,'local','2f7b70f09913820a',NULL,NULL,'[]',NULL,NULL,'error','recipe fba124c9e2246510 fails by order of the fake''s spec','',NULL,NULL);
INSERT INTO "merge_search_evaluation" VALUES(4,'search','complete',1,8,1.79564119136759710315e+09,1795641191.38336,'local','e524a0562aafa1c8',0.625,1.82981263677849975701e-01,'[{"task": "one", "value": 0.625, "stderr": 0.18298126367784998, "n": 8}]',0.0,1.94510000028458307497e-04,NULL,'','',X'789CE36480001620E606627620E600624620660662000360002C',X'789C636000810FF60C586918C0CD0700DB2B05EC');
INSERT INTO "merge_search_evaluation" VALUES(5,'search','complete',1,8,1.79564119145030808444e+09,1.79564119146734189986e+09,'local','1ba8a9ba157228e6',0.875,0.125,'[{"task": "one", "value": 0.875, "stderr": 0.125, "n": 8}]',0.0,1.68851999887920101173e-04,NULL,'','',X'789CE36480001620E606627620E600624620660662000360002C',X'789C636000810FF60C44D130801007000558084A');
INSERT INTO "merge_search_evaluation" VALUES(6,'search','complete',1,8,1795641191.52838,1.79564119154336404799e+09,'local','53450d67e7baf432',0.875,0.125,'[{"task": "one", "value": 0.875, "stderr": 0.125, "n": 8}]',0.0,1.96372000118572032079e-04,NULL,'','',X'789CE36480001620E606627620E600624620660662000360002C',X'789C636000810FF60C44D130801007000558084A');
INSERT INTO "merge_search_evaluation" VALUES(5,'held_out','complete',1,4,1.79564119158505392081e+09,1795641191.59929,'local','1ba8a9ba157228e6',1.0,0.0,'[{"task": "one", "value": 1.0, "stderr": 0.0, "n": 4}]',0.0,1.41751000001022475771e-04,NULL,'','',X'789C636360606002622E206605620000EC0018',X'789C636000810FF60C386800416C04BD');
INSERT INTO "merge_search_evaluation" VALUES(0,'held_out','complete',1,4,1.795641191607198e+09,1.79564119161522388456e+09,'local','c8f7780e8efa8a6c',0.5,2.88675134594812865529e-01,'[{"task": "one", "value": 0.5, "stderr": 0.28867513459481287, "n": 4}]',0.0,1.60929999992731609381e-04,NULL,'','',X'789C636360606002622E206605620000EC0018',X'789C636040061FEC19D0F800174E025F');
INSERT INTO "merge_search_evaluation" VALUES(1,'held_out','complete',1,4,1.79564119161962199204e+09,1795641191.6313,'local','b6e1fa504a5cc5b1',0.5,2.88675134594812865529e-01,'[{"task": "one", "value": 0.5, "stderr": 0.28867513459481287, "n": 4}]',0.0,1.55722000044988817535e-04,NULL,'','',X'789C636360606002622E206605620000EC0018',X'789C636040061FEC19D0F800174E025F');
INSERT INTO "merge_search_evaluation" VALUES(7,'search','running',1,8,1.79564119171226692197e+09,NULL,'','',NULL,NULL,'[]',NULL,NULL,NULL,'','',NULL,NULL);
CREATE TABLE merge_search_lock (
	id INTEGER NOT NULL, 
	token VARCHAR(64) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	pid INTEGER NOT NULL, 
	birth VARCHAR(64) NOT NULL, 
	beat FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE merge_search_run (
	"key" VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "merge_search_run" VALUES('format','1');
INSERT INTO "merge_search_run" VALUES('config','base: ./base
models:
  a: ./a
  b: ./b
tasks:
- name: one
  metric: null
  weight: 1.0
  lower_is_better: null
  num_fewshot: null
  limit: null
include_path: []
harness:
  apply_chat_template: false
  fewshot_as_multiturn: false
  system_instruction: null
  gen_kwargs: {}
  batch_size: auto
  max_length: null
  seed: 0
  trust_remote_code: false
held_out: 0.3
space:
  methods:
  - linear
  - slerp
  weight:
  - 0.0
  - 1.5
  density:
  - 0.1
  - 1.0
  t:
  - 0.0
  - 1.0
  lambda:
  - 0.5
  - 1.5
  gamma:
  - 0.0
  - 0.1
  epsilon:
  - 0.05
  - 0.2
  select_topk:
  - 0.1
  - 1.0
  nearswap_t:
  - 1.0e-05
  - 0.01
  ram_epsilon:
  - 1.0e-06
  - 0.001
  ram_r:
  - 0.0
  - 1.0
  ram_alpha:
  - 0.0
  - 1.0
  depth: null
  filters: []
  filter_parameters:
  - weight
  - t
  order: any
  slices: null
search:
  trials: 7
  hours: null
  sampler: random
  seed: 1
  seeds: default
  validate: 1
workers:
  count: auto
  gpus: auto
  cpus: 1.0
  threads: auto
  device: auto
  ray: false
  ray_address: null
  timeout: null
  retries: 1
output:
  dtype: null
  tokenizer: null
  vocabulary: null
  seed: 0
');
INSERT INTO "merge_search_run" VALUES('space','{"parents": ["a", "b"], "base": "base", "layers": 4, "methods": ["linear", "slerp"], "weight": {"low": 0.0, "high": 1.5}, "density": {"low": 0.1, "high": 1.0}, "t": {"low": 0.0, "high": 1.0}, "scale": {"low": 0.5, "high": 1.5}, "gamma": {"low": 0.0, "high": 0.1}, "epsilon": {"low": 0.05, "high": 0.2}, "select_topk": {"low": 0.1, "high": 1.0}, "nearswap_t": {"low": 1e-05, "high": 0.01}, "ram_epsilon": {"low": 1e-06, "high": 0.001}, "ram_r": {"low": 0.0, "high": 1.0}, "ram_alpha": {"low": 0.0, "high": 1.0}, "depth": {"knots": null, "groups": null, "parameters": ["weight", "t"]}, "filters": [], "filter_parameters": ["weight", "t"], "order": "any", "stacking": null, "dtype": null, "seed": 0, "tokenizer": null, "vocabulary": null}');
INSERT INTO "merge_search_run" VALUES('inputs','{}');
INSERT INTO "merge_search_run" VALUES('inputs_dtype','float32');
INSERT INTO "merge_search_run" VALUES('tasks','[{"name": "one", "metric": "acc,none", "higher_is_better": true, "weight": 1.0, "mean": true}]');
INSERT INTO "merge_search_run" VALUES('catalogue','[["one/8bdef7cde3ac5ab1", "one", 0], ["one/ebf35bbba8424db1", "one", 1], ["one/67086ebaa41f9ec6", "one", 2], ["one/d150bf1fd75b391d", "one", 3], ["one/da41fff71db5deee", "one", 4], ["one/7e2210be8cc0aaca", "one", 5], ["one/f1f507e830784050", "one", 6], ["one/6178a1337b3457b6", "one", 7], ["one/255bf19356a193db", "one", 8], ["one/f8e89bc5e75fa70d", "one", 9], ["one/4919d3d9050f41c3", "one", 10], ["one/8cc33988d8776627", "one", 11]]');
INSERT INTO "merge_search_run" VALUES('search','[9, 0, 4, 11, 7, 8, 1, 3]');
INSERT INTO "merge_search_run" VALUES('held_out','[6, 2, 10, 5]');
INSERT INTO "merge_search_run" VALUES('versions','{}');
INSERT INTO "merge_search_run" VALUES('created','2026-01-01T00:00:00+00:00');
INSERT INTO "merge_search_run" VALUES('dry_run','true');
INSERT INTO "merge_search_run" VALUES('now:seconds','0.8');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'merge-search');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(2,1,'weight.a',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(3,1,'weight.b',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(4,2,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(5,2,'weight.a',0.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(6,2,'weight.b',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(7,3,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(8,3,'weight.a',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(9,3,'weight.b',1.0,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(10,4,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(11,4,'weight.a',0.65,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(12,4,'weight.b',0.35,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(13,5,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(14,5,'weight.a',0.35,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(15,5,'weight.b',0.65,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(16,6,'method',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(17,6,'t',0.5,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(18,7,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(19,7,'weight.a',0.696200130379308,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(20,7,'weight.b',6.582154417217818132e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.5, "log": false}}');
INSERT INTO "trial_params" VALUES(21,8,'method',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "slerp"]}}');
INSERT INTO "trial_params" VALUES(22,8,'t',3.04339319328767565764e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"method": "linear", "weight.a": 1.0, "weight.b": 0.0}');
INSERT INTO "trial_system_attributes" VALUES(2,2,'fixed_params','{"method": "linear", "weight.a": 0.0, "weight.b": 1.0}');
INSERT INTO "trial_system_attributes" VALUES(3,3,'fixed_params','{"method": "linear", "weight.a": 1.0, "weight.b": 1.0}');
INSERT INTO "trial_system_attributes" VALUES(4,4,'fixed_params','{"method": "linear", "weight.a": 0.65, "weight.b": 0.35}');
INSERT INTO "trial_system_attributes" VALUES(5,5,'fixed_params','{"method": "linear", "weight.a": 0.35, "weight.b": 0.65}');
INSERT INTO "trial_system_attributes" VALUES(6,6,'fixed_params','{"method": "slerp", "t": 0.5}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.375,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,0.375,'FINITE');
INSERT INTO "trial_values" VALUES(3,5,0,0.625,'FINITE');
INSERT INTO "trial_values" VALUES(4,6,0,0.875,'FINITE');
INSERT INTO "trial_values" VALUES(5,7,0,0.875,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-25 21:13:10.909684','2026-11-25 21:13:11.005219');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-25 21:13:11.063797','2026-11-25 21:13:11.102797');
INSERT INTO "trials" VALUES(3,2,1,'FAIL','2026-11-25 21:13:11.145708','2026-11-25 21:13:11.193781');
INSERT INTO "trials" VALUES(4,3,1,'FAIL','2026-11-25 21:13:11.226738','2026-11-25 21:13:11.274625');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-25 21:13:11.334751','2026-11-25 21:13:11.389991');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-25 21:13:11.436212','2026-11-25 21:13:11.480706');
INSERT INTO "trials" VALUES(7,6,1,'COMPLETE','2026-11-25 21:13:11.504334','2026-11-25 21:13:11.549949');
INSERT INTO "trials" VALUES(8,7,1,'RUNNING','2026-11-25 21:13:11.688713',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
