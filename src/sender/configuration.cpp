// What it is: following the configuration: the sender's broker and routes, as they are now.
// Who calls it: the sender, at its start and whenever the configuration's generation has risen.
// Never: reconnects for a change of routes; a change of the broker is a new process's business.
#include "broker/loader.hpp"
#include "catalog/arguments.hpp"
#include "catalog/catalog.hpp"
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "sender/sender.hpp"
#include "sender/unusable.hpp"

namespace eventbus::sender {

SenderRoute* find_route(int32 id) {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (route->id == id) return route;
    }
    return nullptr;
}

namespace {

void keep_texts(SenderRoute* route, const catalog::Route& from) {
    auto keep = [](char** mine, const char* theirs) {
        if (*mine != nullptr) pfree(*mine);
        *mine = MemoryContextStrdup(sender.memory, theirs);
    };
    keep(&route->name, from.name);
    keep(&route->destination, from.destination);
    keep(&route->topics, from.topics);
    keep(&route->options, from.options);
    auto keep_utf8 = [](char** mine, const char* theirs) {
        std::string_view text = to_utf8_or_marks(theirs);
        if (*mine != nullptr) pfree(*mine);
        *mine = static_cast<char*>(MemoryContextAllocZero(sender.memory, text.size() + 1));
        memcpy(*mine, text.data(), text.size());
    };
    keep_utf8(&route->guests.name, from.name);
    keep_utf8(&route->guests.destination, from.destination);
    keep_utf8(&route->guests.topics, from.topics);
    keep_utf8(&route->guests.options, from.options);
    route->paused = from.paused;
    route->version = from.version;
}

router::Route make_guest_route(const SenderRoute* route) {
    return {static_cast<std::uint32_t>(route->id),
            route->guests.name,
            route->guests.destination,
            route->guests.topics,
            route->guests.options,
            *sender.module};
}

// Dead letters go the same way as events, but nothing makes them too old or unwanted.
router::Route make_redelivery_route(const SenderRoute* route) {
    router::Route again(redelivery_route(route->id), route->guests.name, route->guests.destination, "#",
                        route->guests.options, *sender.module);
    again.options.max_age.reset();
    return again;
}

SenderRoute* load(const catalog::Route& from) {
    auto* route = static_cast<SenderRoute*>(MemoryContextAllocZero(sender.memory, sizeof(SenderRoute)));
    route->id = from.id;
    keep_texts(route, from);
    route->source = find_source(from.source);
    route->source->load_place(route);
    route->base = route->row.counters;
    return route;
}

// Its source knows it.
void add(SenderRoute* route) {
    delivery::StreamId stream = route->source->stream_of(route);
    route->shared = counters::claim_route(sender.database, route->id);
    cursors::Counters& counters = route->row.counters;
    if (counters.last_error != nullptr) strlcpy(route->last_error, counters.last_error, sizeof route->last_error);
    if (route->shared != nullptr) {  // it may know of a later one: a row that could not be used
        SpinLockAcquire(&route->shared->mutex);
        if (route->shared->last_error_at > counters.last_error_at &&
            strcmp(route->shared->state, source::state_starting) != 0) {
            strlcpy(route->last_error, route->shared->last_error, sizeof route->last_error);
            counters.last_error_at = route->shared->last_error_at;
        }
        SpinLockRelease(&route->shared->mutex);
    }
    call_guest([&] {
        route->filter = new router::TopicFilter(route->guests.topics);
        sender.dispatcher->add_route(make_guest_route(route), stream);
        if (route->paused) sender.dispatcher->pause_route(static_cast<delivery::RouteId>(route->id), true);
    });
    route->source->load_parked_keys(route);
    MemoryContext before = MemoryContextSwitchTo(sender.memory);
    sender.routes = lappend(sender.routes, route);
    MemoryContextSwitchTo(before);
}

// Nothing of a route that is as it was begins again: what concerns others leaves its waits as they are.
void change(SenderRoute* route, const catalog::Route& from) {
    if (route->version == from.version) {
        route->source->apply(route, false);
        return;
    }
    bool same_way = strcmp(route->destination, from.destination) == 0 && strcmp(route->topics, from.topics) == 0 &&
                    strcmp(route->options, from.options) == 0 && strcmp(route->name, from.name) == 0;
    keep_texts(route, from);
    call_guest([&] {
        auto id = static_cast<delivery::RouteId>(route->id);
        if (!same_way) {
            auto* filter = new router::TopicFilter(route->guests.topics);
            delete route->filter;
            route->filter = filter;
            sender.dispatcher->change_route(make_guest_route(route));
            if (route->redelivery != nullptr) sender.dispatcher->change_route(make_redelivery_route(route));
        }
        sender.dispatcher->pause_route(id, route->paused);
        if (route->redelivery != nullptr) sender.dispatcher->pause_route(redelivery_route(route->id), route->paused);
        if (!route->paused) sender.dispatcher->release_route(id);
    });
    route->source->apply(route, !same_way);
    if (!route->paused) route->source->retry(route);
}

// What cannot be read of a row that nobody has checked (it was written by hand, or by another version).
char unusable_words[512];

bool is_valid(const catalog::Route& from) {
    std::string_view name = to_utf8_or_marks(from.name);
    std::string_view destination = to_utf8_or_marks(from.destination);
    std::string_view topics = to_utf8_or_marks(from.topics);
    std::string_view options = to_utf8_or_marks(from.options);
    GuestError error;
    catch_guest(error, [&] {
        const router::Route tried(static_cast<std::uint32_t>(from.id), std::string(name), destination, topics, options,
                                  *sender.module);
        if (find_source(from.source) == nullptr) throw BadInput("its source is not known here");
    });
    if (error.kind == GuestError::Kind::none) return true;
    char words[sizeof error.message];
    show_text(words, sizeof words, error.message);
    copy_text(unusable_words, sizeof unusable_words,
              psprintf("the route's row in eventbus.route_config cannot be used: %s", words));
    // Told once a process and change of the configuration.
    ereport(WARNING,
            (errmsg("pg_eventbus: route \"%s\" to broker \"%s\" is left out: %s", from.name, sender.broker_name, words),
             errdetail("Its events wait; other routes continue."),
             errhint("Correct it with eventbus.alter_route, or eventbus.drop_route it.")));
    return false;
}

void park(const catalog::Route& from) {
    show_unusable(from.id, unusable_words);
    if (Source* source = find_source(from.source)) source->keep_for_unusable(from.id, from.topics);
}

void begin_redelivery(SenderRoute* route) {
    route->redelivery = static_cast<Redelivery*>(MemoryContextAllocZero(sender.memory, sizeof(Redelivery)));
    route->redelivery->stream = ++sender.next_stream;
    route->redelivery->next_chunk = 1;
    call_guest([&] {
        sender.dispatcher->add_route(make_redelivery_route(route), route->redelivery->stream, false,
                                     static_cast<delivery::RouteId>(route->id));
        if (route->paused) sender.dispatcher->pause_route(redelivery_route(route->id), true);
    });
}

void remove(SenderRoute* route) {
    call_guest([&] {
        sender.dispatcher->remove_route(static_cast<delivery::RouteId>(route->id));
        if (route->redelivery != nullptr) sender.dispatcher->remove_route(redelivery_route(route->id));
        delete route->filter;
    });
    route->source->remove(route);
    counters::free_route(sender.database, route->id);
    sender.routes = list_delete_ptr(sender.routes, route);
    pfree(route);
}

// Nobody after us would free the routes' places in shared memory.
[[noreturn]] void leave_nothing_to_serve() {
    commit_transaction();
    ListCell* cell;
    foreach (cell, sender.routes)
        counters::free_route(sender.database, static_cast<const SenderRoute*>(lfirst(cell))->id);
    proc_exit(0);
}

// An operator has fixed something that the broker's row does not tell.
void release_all() {
    ListCell* cell;
    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (!route->paused)
            call_guest([&] { sender.dispatcher->release_route(static_cast<delivery::RouteId>(route->id)); });
    }
}

// The broker as it is now; a sender serves one broker with one URL all its life.
void apply_broker() {
    catalog::Broker broker;
    if (log::relations_if_any() == nullptr) leave_nothing_to_serve();
    SPI_connect();
    if (!catalog::read_broker(sender.broker_id, &broker, sender.memory)) {
        SPI_finish();
        leave_nothing_to_serve();
    }
    if (sender.broker_url == nullptr) {
        sender.broker_name = broker.name;
        sender.broker_url = broker.url;
        sender.broker_options = broker.options;
        sender.broker_version = broker.version;
        return;
    }
    bool same = strcmp(sender.broker_url, broker.url) == 0 && strcmp(sender.broker_options, broker.options) == 0 &&
                strcmp(sender.broker_name, broker.name) == 0;
    pfree(broker.name);
    pfree(broker.url);
    pfree(broker.options);
    bool said_again = same && broker.version != sender.broker_version;
    sender.broker_version = broker.version;
    if (said_again) release_all();
    if (same) return;
    SPI_finish();
    commit_transaction();
    --sender.configuration;  // the states that it leaves behind are of the broker as it was
    leave();                 // the keeper starts another one
}

}  // namespace

void read_broker_first() {
    if (!begin_transaction_on_extension("reading the broker")) proc_exit(0);
    apply_broker();
    SPI_finish();
    commit_transaction();
}

bool knows_configuration() {
    return sender.place->configuration == sender.configuration;
}

void apply_configuration() {
    sender.configuration = sender.place->configuration;  // before reading: what changes meanwhile is read again
    if (!begin_transaction_on_extension("reading routes")) proc_exit(0);
    apply_broker();

    catalog::Route* routes;
    int count = catalog::read_routes(sender.broker_id, &routes, CurTransactionContext);
    if (count == 0) {
        SPI_finish();
        leave_nothing_to_serve();
    }

    ListCell* cell;
    foreach (cell, sender.routes) static_cast<SenderRoute*>(lfirst(cell))->seen = false;
    List* fresh = NIL;
    for (Source* source : sources()) source->begin_configuration();
    for (int i = 0; i < count; ++i) {
        SenderRoute* route = find_route(routes[i].id);
        if (!is_valid(routes[i])) {
            if (route != nullptr) remove(route);
            park(routes[i]);
            continue;
        }
        if (route != nullptr) {
            change(route, routes[i]);
            route->seen = true;
            continue;
        }
        route = load(routes[i]);
        route->seen = true;
        fresh = lappend(fresh, route);
    }
    for (Source* source : sources()) {
        auto** its = static_cast<source::Route**>(palloc(sizeof(source::Route*) * (list_length(fresh) + 1)));
        std::size_t its_count = 0;
        foreach (cell, fresh) {
            auto* route = static_cast<SenderRoute*>(lfirst(cell));
            if (route->source == source) its[its_count++] = route;
        }
        source->place({its, its_count});
    }
    foreach (cell, fresh) add(static_cast<SenderRoute*>(lfirst(cell)));
    // Remembered in the routes: what is allocated here goes with the transaction.
    for (int i = 0; i < count; ++i) {
        SenderRoute* route = find_route(routes[i].id);
        if (route == nullptr) continue;  // it cannot be used
        route->has_letters_to_send = routes[i].dead_letters_to_send > 0;
    }
    foreach (cell, list_copy(sender.routes)) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        if (!route->seen) remove(route);
    }
    SPI_finish();
    commit_transaction();

    foreach (cell, sender.routes) {
        auto* route = static_cast<SenderRoute*>(lfirst(cell));
        end_if_discarded(route);
        if (route->redelivery != nullptr || !route->has_letters_to_send) continue;
        begin_redelivery(route);
        feed_redelivery(route);
    }
}

}  // namespace eventbus::sender
