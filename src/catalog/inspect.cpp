// What it is: test_broker, test_route: a look at a broker and at a route's destination, from the calling backend.
// Who calls it: operators, in SQL.
// Never: sends a message, writes anything, or shows a password.
#include "broker/inspection.hpp"
#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "catalog/catalog.hpp"
#include "catalog/names.hpp"
#include "postgres/compat.hpp"
#include "postgres/encoding.hpp"
#include "postgres/home.hpp"
#include "postgres/query.hpp"
#include "postgres/rights.hpp"
#include "router/route.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
}

namespace eventbus::catalog {

namespace {

constexpr std::chrono::milliseconds longest_look{10'000};

// What the sender reads, in UTF-8.
struct Row {
    std::string_view broker;
    std::string_view url;
    std::string_view options;
    std::string_view route_name;
    std::string_view route_destination;
    std::string_view route_topics;
    std::string_view route_options;
    std::string_view source;
};

std::string_view utf8_at(int column, MemoryContext memory) {
    std::string_view text = to_utf8_or_marks(text_at(0, column));
    auto* kept = static_cast<char*>(MemoryContextAlloc(memory, text.size() + 1));
    memcpy(kept, text.data(), text.size());
    return {kept, text.size()};
}

// Nothing is delivered from here whatever the test says, where that is not the broker's doing.
void tell_if_nothing_is_delivered(const char* broker, bool is_foreign) {
    if (!settings::delivery)
        ereport(NOTICE, (errmsg("eventbus.delivery is off: nothing is delivered from this database"),
                         errhint("The test connects all the same.")));
    if (is_foreign && settings::copies == settings::copies_pause)
        ereport(NOTICE, (errmsg("broker \"%s\" has come here by a dump or with a copy of its database: nothing is "
                                "delivered to it from here",
                                broker),
                         errhint("The test connects all the same. SELECT eventbus.adopt() lets it be delivered to.")));
}

// Rows are not locked: whoever changes them meanwhile does not wait for the broker.
Row read_row(const char* name, bool of_route, MemoryContext memory) {
    SPI_connect();
    const int32 id = of_route ? find_route(name, Hold::none) : find_broker(name, Hold::none);
    run_query(of_route ? "SELECT b.name, b.url, b.options::text, b.home IS DISTINCT FROM $2, r.name, r.destination, "
                         "r.topics, r.options::text FROM eventbus.route_config r JOIN eventbus.broker_config b "
                         "ON b.id = r.broker_id WHERE r.id = $1"
                       : "SELECT b.name, b.url, b.options::text, b.home IS DISTINCT FROM $2 "
                         "FROM eventbus.broker_config b WHERE b.id = $1",
              {Argument::of(id), Argument::of(static_cast<const char*>(home_of(MyDatabaseId)))}, true);
    if (SPI_processed == 0)
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("route \"%s\" has no broker", name),
                        errdetail("Its row in eventbus.route_config was not written by eventbus.create_route."),
                        errhint("Drop it with eventbus.drop_route.")));
    tell_if_nothing_is_delivered(text_at(0, 1), bool_at(0, 4));
    Row row{};
    row.broker = utf8_at(1, memory);
    row.url = utf8_at(2, memory);
    row.options = utf8_at(3, memory);
    if (of_route) {
        row.route_name = utf8_at(5, memory);
        row.route_destination = utf8_at(6, memory);
        row.route_topics = utf8_at(7, memory);
        row.route_options = utf8_at(8, memory);
    }
    SPI_finish();
    row.source = to_utf8_or_marks(settings::source_name());
    return row;
}

broker::Target target_of(const Row& row, const broker::Module& module) {
    const router::Route route(0, std::string(row.route_name), row.route_destination, row.route_topics,
                              row.route_options, module);
    broker::Target target{route.addressing, {}};
    target.name = route.addressing.varies
                      ? std::string(row.route_destination.substr(row.route_destination.find(':') + 1))
                      : route.destination.name.literal();
    return target;
}

// As the sender does it (sender/sender.cpp).
broker::Inspection* begin(const Row& row, bool of_route) {
    auto inspection = std::make_unique<broker::Inspection>();
    try {
        BrokerSettings settings = broker::read_broker(row.broker, row.url, row.options, module_directory());
        settings.source = row.source;
        const broker::Module* module = broker::load_module(settings.url.scheme, module_directory());
        inspection->begin(settings, *module, of_route ? target_of(row, *module) : broker::Target(), longest_look,
                          broker::Clock::now());
    } catch (const BadInput& bad) {
        inspection->refuse(bad);
    }
    return inspection.release();
}

// Whatever ends the statement ends the connection.
broker::Inspection* hold(broker::Inspection* inspection, MemoryContextCallback* callback) {
    callback->arg = inspection;
    callback->func = [](void* arg) { delete static_cast<broker::Inspection*>(arg); };
    MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
    return inspection;
}

broker::Ready wait_for(const broker::Inspection::Wait& wait) {
    static uint32 wait_event = 0;
    if (wait_event == 0) wait_event = compat::wait_event("EventbusTest");
    const broker::Interest& interest = wait.interest;
    int events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
    if (interest.fd >= 0 && interest.read) events |= WL_SOCKET_READABLE;
    if (interest.fd >= 0 && interest.write) events |= WL_SOCKET_WRITEABLE;
    const auto milliseconds = static_cast<long>(wait.most.count());
    const bool has_socket = (events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0;
    const int occurred = has_socket ? WaitLatchOrSocket(MyLatch, events, interest.fd, milliseconds, wait_event)
                                    : WaitLatch(MyLatch, events, milliseconds, wait_event);
    if ((occurred & WL_LATCH_SET) != 0) ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
    return {(occurred & WL_SOCKET_READABLE) != 0, (occurred & WL_SOCKET_WRITEABLE) != 0};
}

void put(ReturnSetInfo* result, const broker::Finding& finding) {
    const bool known = finding.answer != broker::Finding::Answer::unknown;
    Datum values[4] = {CStringGetTextDatum(finding.step), BoolGetDatum(finding.answer == broker::Finding::Answer::yes),
                       CStringGetTextDatum(shown_text(finding.detail)), CStringGetTextDatum(shown_text(finding.hint))};
    bool nulls[4] = {false, !known, false, finding.hint.empty()};
    tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void test(FunctionCallInfo fcinfo, const char* name, bool of_route) {
    refuse_where_nobody_asks(fcinfo);
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    auto* callback = static_cast<MemoryContextCallback*>(palloc0(sizeof(MemoryContextCallback)));
    const Row row = read_row(name, of_route, CurrentMemoryContext);
    broker::Inspection* inspection = hold(call_guest([&] { return begin(row, of_route); }), callback);
    broker::Ready ready;
    for (;;) {
        const auto wait = call_guest([&] { return inspection->drive(ready, broker::Clock::now()); });
        if (wait.done) break;
        ready = wait_for(wait);
    }
    for (const broker::Finding& finding : inspection->findings()) put(result, finding);
    callback->arg = nullptr;
    call_guest([&] { delete inspection; });
}

}  // namespace

}  // namespace eventbus::catalog

extern "C" {
EVENTBUS_SQL_FUNCTION(eventbus_test_broker);
EVENTBUS_SQL_FUNCTION(eventbus_test_route);
}

using namespace eventbus::catalog;

Datum eventbus_test_broker(PG_FUNCTION_ARGS) {
    test(fcinfo, required_text(fcinfo, 0, "test_broker", "name"), false);
    PG_RETURN_NULL();
}

Datum eventbus_test_route(PG_FUNCTION_ARGS) {
    test(fcinfo, required_text(fcinfo, 0, "test_route", "name"), true);
    PG_RETURN_NULL();
}
