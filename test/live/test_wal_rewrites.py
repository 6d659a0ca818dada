# What it is: rewrites of the extension's own tables beside routes from the WAL, whose sender decodes them, too.
# Who calls it: pytest.
# Never: looks at what a rewrite does to the log; that is test_vacuum.py's.
from servers import eventually


def test_cursors_are_written_where_they_stand_now(db, frozen_redis, redis_server, name):
    """Decoding sees the table as it was between two rewrites; the sender's own writes must not."""
    db.broker("decoding", frozen_redis.url)
    db.broker("other", redis_server.url)
    db.route("wal", "decoding", f"stream:{name}", "shop.#", source="wal", messages="shop.*")
    db.route("log", "other", f"stream:{name}", "shop.#")
    db.wait_state("wal", "active", deadline=60)
    sender = db.sender("wal")
    frozen_redis.freeze()
    db.run("SELECT eventbus.publish_wal('shop.held', '1')")
    db.run("VACUUM FULL eventbus.cursor")
    for n in range(20):
        db.publish("shop.x", n)
        eventually(lambda n=n: redis_server.client().xlen(name) > n)
    eventually(lambda: db.one("SELECT sum(delivered) FROM eventbus.cursor") >= 20)
    db.run("DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM eventbus.publish_wal('shop.y', '1'); COMMIT; END LOOP; END $$")
    db.run("VACUUM FULL eventbus.cursor")
    db.run("SELECT pg_terminate_backend(%s)", sender)
    frozen_redis.thaw()
    eventually(lambda: frozen_redis.client().xlen(name) == 20001, 60, "all have arrived")
    db.wait_status("wal", 60, state="active", delivered=20001, lag=lambda lag: lag is not None and not lag)
    assert db.one("SELECT count(*) FROM eventbus.cursor WHERE NOT wal_lost") == 2
