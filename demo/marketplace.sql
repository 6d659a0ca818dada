-- What it is: the marketplace of the demo: a table with a trigger that publishes what is listed in it, and one that is captured.
-- Who calls it: demo/run, which shows what comes after the first empty line.
-- Never: knows a broker; where events go is the routes' business.

CREATE EXTENSION pg_eventbus;

CREATE TABLE inventory (sku text PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL);

-- A trigger: what is published is up to you.
CREATE FUNCTION publish_listing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventbus.publish('shop.product.listed', to_jsonb(NEW), key => NEW.sku);
    RETURN NEW;
END $$;
CREATE TRIGGER publish_listing AFTER INSERT ON inventory FOR EACH ROW EXECUTE FUNCTION publish_listing();

-- A capture: no code, the key is the primary key.
CREATE TABLE auction (sku text PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL);
SELECT eventbus.capture('auction', topic => 'shop.product.listed', operations => 'insert', payload => 'row');
