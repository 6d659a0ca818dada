#include "health/wal_health.hpp"

#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "catalog/wal_selection.hpp"
#include "core/broker_settings.hpp"
#include "postgres/attempt.hpp"
#include "postgres/query.hpp"
#include "source/wal/preflight.hpp"
#include "source/wal/slot.hpp"

namespace eventbus::health {

namespace {

Finding look_at_settings(bool all_slots_exist) {
    wal::Need need = wal::missing_setting(all_slots_exist);
    if (need.what != nullptr) return {"error", need.what, need.hint};
    return {"ok", "the server is set up for routes from the WAL", nullptr};
}

// Null where there is no slot, or where it has no place yet.
struct Slot {
    const char* broker;
    const char* slot;
    const char* wal_status;
    const char* held_back;
    const char* limit;
    bool lost_routes;
    const char* left;  // how much more may be written until it is invalidated; nullptr: without limit
    bool nearly;       // that is little,
    bool half;         // or half of the limit
};

Finding look_at_slot(const Slot& of) {
    const auto& [broker, slot, wal_status, held_back, limit, lost_routes, left, nearly, half] = of;
    if (slot == nullptr && lost_routes)
        return {"error", "its replication slot is gone, and its routes are lost",
                "Its routes show what was lost; eventbus.restart_route begins again, with a new slot."};
    if (slot != nullptr) {
        const wal::SlotState state = wal::look_up_slot(slot);
        if (state.alien != nullptr) return {"error", state.alien, wal::hint_to_drop(slot)};
    }
    if (wal_status != nullptr && strcmp(wal_status, "lost") == 0)
        return {
            "error",
            psprintf("replication slot %s was invalidated: WAL that it needed is gone (max_slot_wal_keep_size is %s)",
                     slot, limit),
            "Its routes show what was lost; eventbus.restart_route begins again."};
    if (slot == nullptr || wal_status == nullptr || held_back == nullptr)  // or it is being made
        return {"warning", "it has no replication slot yet", "It is made by the broker's sender: see its routes."};
    if (strcmp(wal_status, "unreserved") == 0 || nearly)
        return {"error",
                psprintf("replication slot %s is about to be invalidated; it holds back %s%s%s%s", slot, held_back,
                         left != nullptr ? ", and " : "", left != nullptr ? left : "",
                         left != nullptr ? " more may be written" : ""),
                psprintf("Fix or drop the route that is stalled, end the transaction that has been open for long or "
                         "writes much, or raise max_slot_wal_keep_size (%s) and reload.",
                         limit)};
    if (strcmp(wal_status, "extended") == 0)
        return {"warning",
                psprintf("replication slot %s holds back %s of WAL, more than max_wal_size", slot, held_back),
                "Fix or drop the route that is stalled."};
    if (half)
        return {
            "warning",
            psprintf("replication slot %s holds back %s of WAL; it is invalidated when %s more are written", slot,
                     held_back, left),
            psprintf("Fix or drop the route that is stalled, or raise max_slot_wal_keep_size (%s) and reload.", limit)};
    return {"ok", psprintf("replication slot %s holds back %s of WAL", slot, held_back), nullptr};
}

// The routes that take messages while PUBLIC may write them: what they deliver may be anybody's, who need not be
// allowed to publish. PostgreSQL's records carry no role.
Finding look_at_messages() {
    run_query(
        "SELECT (SELECT string_agg(name, ', ' ORDER BY name) FROM eventbus.route_config WHERE source = 'wal' "
        "AND coalesce(options -> 'messages', 'null') NOT IN ('\"-*\"', '[\"-*\"]')), "
        "(SELECT string_agg(oid::regprocedure::text, ', ' ORDER BY oid) FROM pg_proc "
        "WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace "
        "AND has_function_privilege('public', oid, 'EXECUTE'))");
    const char* routes = text_at(0, 1);
    const char* functions = text_at(0, 2);
    if (routes == nullptr || functions == nullptr)
        return {"ok", "no route delivers messages that anybody may have written", nullptr};
    return {"warning", psprintf("every role may write messages into the WAL, which are delivered by: %s", routes),
            psprintf("REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC (publish_wal and publish_now need none of them), or "
                     "set the routes' option \"messages\" to \"-*\".",
                     functions)};
}

Finding look_at_tables(const char* options, const char* url, const char* topics) {
    const broker::Module* module =
        call_guest([&] { return broker::load_module(url_scheme(url), catalog::module_directory()); });
    wal::Selection selection = catalog::wal_selection(options, *module);
    const char* publications = wal::missing_publications(selection);
    if (publications != nullptr)
        return {"error", psprintf("publications that do not exist: %s; nothing comes through them", publications),
                "CREATE PUBLICATION, or name others by eventbus.alter_route."};
    if (const char* table = catalog::contradicted_table(selection, topics))
        return {"error",
                psprintf("publications disagree on the columns of table %s: its changes become dead letters", table),
                "Alter the publications, or leave the table out by the route option tables."};
    const char* tables = catalog::tables_without_identity(selection, topics);
    const char* patterns = wal::patterns_without_tables(selection);
    if (catalog::takes_nothing(selection, topics))
        return {"warning", "it takes nothing that there is now: no table's changes, and no messages",
                "See its tables, publications, operations, messages and topics; the topic of a row is "
                "schema.table.operation."};
    const char* named = patterns == nullptr ? catalog::topics_without_rows(selection, topics) : nullptr;
    if (tables == nullptr && named != nullptr)
        return {"warning", psprintf("its topics name tables of which it gets no rows: %s", named),
                "Correct its topics, or its publications; for messages alone, set the route option tables to "
                "\"-*.*\"."};
    if (tables == nullptr && patterns != nullptr)
        return {"warning", psprintf("it asks for tables that do not exist, or of which it gets no rows: %s", patterns),
                "Create them, or correct the route option tables; for no tables it is \"-*.*\"."};
    if (tables == nullptr && catalog::names_tables_in_vain(selection, topics))
        return {"warning", "its topics fit no row of the tables that it names: it takes messages alone",
                "The topic of a row is schema.table.operation: correct its topics; for messages alone, set the route "
                "option tables to \"-*.*\"."};
    if (tables == nullptr) return {"ok", "every table that it takes changes of has a replica identity", nullptr};
    return {"warning",
            psprintf("tables without a replica identity: %s. %s", tables, wal::words_without_identity(selection)),
            "Give them a primary key that is not deferrable, or ALTER TABLE ... REPLICA IDENTITY FULL."};
}

// A route of which that cannot be said costs the others nothing, nor does a lock on a table: PostgreSQL's view of
// publications opens the tables from version 16 on.
Finding try_to_look_at_tables(const char* options, const char* url, const char* topics) {
    Finding found = {};
    const ErrorData* error = attempt_without_waiting([&] { found = look_at_tables(options, url, topics); });
    if (error == nullptr) return found;
    if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
        return {"warning", "not looked at: somebody has locked a table of its publications", "Ask again later."};
    return {"error", psprintf("cannot be looked at: %s", error_words(error)),
            error->hint != nullptr ? error->hint : "Fix the route with eventbus.alter_route, or what the error names."};
}

}  // namespace

void look_at_wal(void (*put)(void* context, const char* name, const Finding& finding), void* context) {
    run_query(
        "SELECT name, options::text, (SELECT url FROM eventbus.broker_config b WHERE b.id = broker_id), topics "
        "FROM eventbus.route_config WHERE source = 'wal' ORDER BY 1");
    auto count = static_cast<int>(SPI_processed);
    if (count == 0) return;
    struct Line {
        char* name;
        char* options;
        char* url;
        char* topics;
    };
    auto* lines = static_cast<Line*>(palloc(sizeof(Line) * static_cast<Size>(count)));
    for (int i = 0; i < count; ++i) lines[i] = {text_at(i, 1), text_at(i, 2), text_at(i, 3), text_at(i, 4)};
    run_query(
        "SELECT b.name, s.slot_name::text, s.wal_status, pg_size_pretty(pg_current_wal_lsn() - s.restart_lsn), "
        "current_setting('max_slot_wal_keep_size'), "
        "(SELECT bool_and(c.wal_lost) FROM eventbus.cursor c JOIN eventbus.route_config r ON r.id = c.route_id "
        "WHERE c.key IS NULL AND c.event_ids IS NULL AND r.broker_id = b.id AND r.source = 'wal'), "
        "pg_size_pretty(greatest(s.safe_wal_size, 0)), "
        "s.safe_wal_size <= greatest(m.most / 8, pg_size_bytes(current_setting('wal_segment_size'))), "
        "s.safe_wal_size <= m.most / 2 "
        "FROM eventbus.broker_config b LEFT JOIN pg_replication_slots s ON s.slot_name = "
        "format('pg_eventbus_%s_%s', (SELECT oid FROM pg_database WHERE datname = current_database()), b.id) "
        "CROSS JOIN (SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size') m (most) "
        "WHERE EXISTS (SELECT FROM eventbus.route_config r WHERE r.broker_id = b.id AND r.source = 'wal') ORDER BY 1");
    bool all_exist = true;
    const auto slot_count = static_cast<int>(SPI_processed);
    auto* slots = static_cast<Slot*>(palloc(sizeof(Slot) * static_cast<Size>(slot_count + 1)));
    for (int i = 0; i < slot_count; ++i)
        slots[i] = {text_at(i, 1), text_at(i, 2), text_at(i, 3), text_at(i, 4), text_at(i, 5),
                    bool_at(i, 6), text_at(i, 7), bool_at(i, 8), bool_at(i, 9)};
    for (int i = 0; i < slot_count; ++i) {
        all_exist = all_exist && slots[i].slot != nullptr;
        put(context, psprintf("WAL for broker %s", slots[i].broker), look_at_slot(slots[i]));
    }
    put(context, "WAL", look_at_settings(all_exist));
    put(context, "messages in the WAL", look_at_messages());
    for (int i = 0; i < count; ++i)
        put(context, psprintf("tables of route %s", lines[i].name),
            try_to_look_at_tables(lines[i].options, lines[i].url, lines[i].topics));
}

}  // namespace eventbus::health
