-- What it is: the marketplace of the demo: a table, and a trigger that publishes what is listed in it.
-- Who calls it: demo/run.
-- Never: knows a broker; where events go is the routes' business.
CREATE EXTENSION pg_eventbus;

CREATE TABLE inventory (
    sku   text PRIMARY KEY,
    name  text NOT NULL,
    price numeric(10, 2) NOT NULL
);

CREATE FUNCTION publish_listing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.publish('shop.product.listed', to_jsonb(NEW), key => NEW.sku);
    RETURN NEW;
END $$;

CREATE TRIGGER publish_listing AFTER INSERT ON inventory
    FOR EACH ROW EXECUTE FUNCTION publish_listing();
