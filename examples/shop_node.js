// What it is: a shop that publishes with node-pg, each event in the transaction that writes what it tells of.
// Who calls it: whoever copies from it; test/live/test_examples.py. PGHOST, PGDATABASE, PGUSER, ... say where to.
// Never: waits for a broker, or publishes what is not committed.
'use strict';

const { randomUUID } = require('node:crypto');
const { Pool } = require('pg');

const pool = new Pool();

// COMMIT at the end of work(client), ROLLBACK when it throws.
async function transaction(work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((unreachable) => { broken = unreachable; });
    throw error;
  } finally {
    client.release(broken);
  }
}

// The event's id, as a string. payload: whatever JSON can say; key: a string or a number; headers: an object.
// JSON.stringify is not for taste: of an array node-pg makes one of PostgreSQL's, and of [] the text {}.
async function publish(client, topic, payload, key = null, headers = null) {
  const { rows } = await client.query('SELECT eventbus.publish($1, $2, $3, $4) AS id',
    [topic, JSON.stringify(payload), key, headers === null ? null : JSON.stringify(headers)]);
  return rows[0].id;
}

// An object as payload, an integer as key, headers.
const placeOrder = (customer, lines, headers) => transaction(async (client) => {
  const { rows } = await client.query('INSERT INTO orders (customer, lines) VALUES ($1, $2) RETURNING id',
    [customer, JSON.stringify(lines)]);
  const id = Number(rows[0].id); // node-pg reads bigint as a string
  await publish(client, 'shop.order.placed', { id, customer, lines }, id, headers);
  return id;
});

// A UUID as key.
const pay = (order, amount) => transaction(async (client) => {
  const id = randomUUID();
  await client.query('INSERT INTO payment (id, order_id, amount) VALUES ($1, $2, $3)', [id, order, amount]);
  await publish(client, 'shop.payment.received', { order, amount }, id);
  return id;
});

// Rows and their events in one statement, of one parameter.
const importProducts = (products) => transaction((client) => client.query(`
  WITH imported AS (
      INSERT INTO product (sku, name, price)
      SELECT sku, name, price FROM jsonb_to_recordset($1) AS given (sku varchar, name text, price numeric)
      ON CONFLICT (sku) DO UPDATE SET name = excluded.name, price = excluded.price
      RETURNING sku, name, price)
  SELECT eventbus.publish('shop.product.imported', to_jsonb(imported), imported.sku) FROM imported`,
[JSON.stringify(products)]));

// The same with arrays, which node-pg passes as what they are.
const changePrices = (prices) => transaction((client) => client.query(`
  WITH repriced AS (
      UPDATE product SET price = given.price FROM unnest($1::varchar[], $2::numeric[]) AS given (sku, price)
      WHERE product.sku = given.sku
      RETURNING product.sku, product.price)
  SELECT eventbus.publish('shop.product.repriced', to_jsonb(repriced), repriced.sku) FROM repriced`,
[Object.keys(prices), Object.values(prices)]));

// Statement by statement.
const countStock = (counts) => transaction(async (client) => {
  for (const [sku, stock] of Object.entries(counts)) {
    await client.query('UPDATE product SET stock = $1 WHERE sku = $2', [stock, sku]);
    await publish(client, 'shop.stock.counted', { sku, stock }, sku);
  }
});

// An array as payload, no key.
const withdraw = (skus) => transaction(async (client) => {
  await client.query('DELETE FROM product WHERE sku = ANY ($1)', [skus]);
  await publish(client, 'shop.product.withdrawn', skus);
});

async function main() {
  const order = await placeOrder("Żaneta O'Neill", [{ sku: 'SKU-1', quantity: 2 }],
    { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', tenant: 7 });
  const payment = await pay(order, '19.80');
  try {
    await pay(-1, '5.00'); // there is no such order: COMMIT fails, and nobody hears of the payment
  } catch (error) {
    if (error.code !== '23503') throw error;
  }
  await importProducts([1, 2, 3, 4].map((n) => ({ sku: `SKU-${n}`, name: `desk ${n}`, price: '9.90' })));
  await changePrices({ 'SKU-1': '8.90', 'SKU-2': '12.00' });
  await countStock({ 'SKU-1': 3, 'SKU-2': 0 });
  await withdraw(['SKU-3', 'SKU-4']);
  console.log(JSON.stringify({ order, payment }));
}

main().finally(() => pool.end()).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
