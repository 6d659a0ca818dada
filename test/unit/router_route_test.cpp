// What it is: tests of templates, destinations and route options.
// Who calls it: make -C test/unit router.
// Never: needs a server.
#include <gtest/gtest.h>

#include <array>
#include <map>

#include "core/bad_input.hpp"
#include "router/route.hpp"

namespace eventbus::router {
namespace {

using namespace std::chrono_literals;

constexpr std::array<std::string_view, 2> amqp_kinds = {"exchange", "queue"};
constexpr std::array<std::string_view, 2> amqp_options = {"routing_key", "persistent"};
constexpr std::array<std::string_view, 3> redis_kinds = {"channel", "stream", "list"};
constexpr std::array<std::string_view, 1> redis_options = {"maxlen"};
constexpr std::array<std::string_view, 1> mqtt_kinds = {"topic"};
constexpr std::array<std::string_view, 2> mqtt_options = {"qos", "retain"};

// What a module of a test makes of its options: the text of each.
using Read = std::map<std::string, std::string>;

broker::Module module_of(const char* protocol, std::span<const std::string_view> kinds,
                         std::span<const std::string_view> options) {
    broker::Module module;
    module.protocol = protocol;
    module.kinds = kinds;
    module.route_options = options;
    module.is_elsewhere = [](OptionsOf of, std::string_view name) { return of == OptionsOf::route && name == "qos"; };
    module.read_route = [](std::string_view kind, const Options& given) {
        const auto read = std::make_shared<Read>();
        broker::RouteRead made{read, std::nullopt};
        (*read)["kind"] = kind;
        if (kind == "exchange") made.routing_key = "{topic}";
        if (const auto key = given.find("routing_key")) made.routing_key = key->text("a template");
        if (const auto maxlen = given.find("maxlen")) (*read)["maxlen"] = std::to_string(maxlen->whole_number(0, 9));
        return made;
    };
    return module;
}
broker::Module amqp() {
    return module_of("amqp", amqp_kinds, amqp_options);
}
broker::Module redis() {
    return module_of("redis", redis_kinds, redis_options);
}
broker::Module mqtt() {
    return module_of("mqtt", mqtt_kinds, mqtt_options);
}

RouteOptions read_options(std::string_view json, const broker::Module& module) {
    return read_route_options({known_route_options(module), json});
}

template <typename F>
BadInput error_of(F&& f) {
    try {
        f();
    } catch (const BadInput& e) {
        return e;
    }
    ADD_FAILURE() << "nothing was thrown";
    return BadInput("");
}

std::string render(std::string_view text, const Event& event) {
    std::string scratch = "left over";
    return std::string(Template(text).render(event, scratch));
}

Event sample() {
    Event event;
    event.topic = "shop.order.created";
    event.key = "order-17";
    event.headers = R"({"tenant":"acme","n":42,"x":1.5,"yes":true,"nothing":null,"uni":"gr\u00fc\u00df"})";
    return event;
}

TEST(Template, Renders) {
    const auto event = sample();
    EXPECT_EQ(render("orders", event), "orders");
    EXPECT_EQ(render("{topic}", event), "shop.order.created");
    EXPECT_EQ(render("a/{topic/}/b", event), "a/shop/order/created/b");
    EXPECT_EQ(render("{topic/}", event), "shop/order/created");
    EXPECT_EQ(render("{key}", event), "order-17");
    EXPECT_EQ(render("{key}:{topic}", event), "order-17:shop.order.created");
    EXPECT_EQ(render("{header:tenant}.{header:n}.{header:x}.{header:yes}", event), "acme.42.1.5.true");
    EXPECT_EQ(render("<{header:nothing}{header:missing}>", event), "<>");
    EXPECT_EQ(render("{header:uni}", event), "grüß");
    EXPECT_EQ(render("{{{topic}}}", event), "{shop.order.created}");
    EXPECT_EQ(render("a{{b}}c", event), "a{b}c");
    Event bare;
    bare.topic = "t";
    EXPECT_EQ(render("{key}", bare), "");
    EXPECT_EQ(render("x{key}{header:a}y", bare), "xy");
    bare.headers = "not json";
    EXPECT_EQ(render("x{header:a}y", bare), "xy");
    bare.headers = "[1]";
    EXPECT_EQ(render("x{header:a}y", bare), "xy");
}

TEST(Template, CheapCasesAreViews) {
    const auto event = sample();
    std::string scratch;
    const Template constant("orders");
    EXPECT_TRUE(constant.is_constant());
    EXPECT_EQ(constant.render(event, scratch).data(), constant.render(event, scratch).data());
    const Template topic("{topic}");
    EXPECT_FALSE(topic.is_constant());
    EXPECT_EQ(topic.render(event, scratch).data(), event.topic.data());
    EXPECT_EQ(Template("{key}").render(event, scratch).data(), event.key->data());
    EXPECT_TRUE(scratch.empty());
    EXPECT_EQ(Template().render(event, scratch), "");
}

TEST(Template, Errors) {
    for (const auto* text : {"{nope}", "{}", "{header:}", "{Topic}", "{header}", "{ topic }"}) {
        const auto error = error_of([&] { Template t(text); });
        EXPECT_NE(error.detail().find("Unknown placeholder"), std::string::npos) << text;
        for (const auto* name : {"{topic}", "{topic/}", "{key}", "{header:NAME}"}) {
            EXPECT_NE(error.hint().find(name), std::string::npos) << text;
        }
    }
    for (const auto* text : {"a{topic", "a{", "{to{topic}", "{{{topic"}) {
        EXPECT_EQ(error_of([&] { Template t(text); }).detail(), "An opening brace has no closing one.") << text;
    }
    for (const auto* text : {"a}", "topic}", "{topic}}", "}"}) {
        EXPECT_EQ(error_of([&] { Template t(text); }).detail(), "A closing brace has no opening one.") << text;
    }
    EXPECT_EQ(error_of([&] { Template t(""); }).detail(), "The template is empty.");
}

TEST(Destination, KindAndName) {
    const auto d = parse_destination("stream:events:{topic}", redis());
    EXPECT_EQ(d.kind, "stream");
    std::string scratch;
    EXPECT_EQ(d.name.render(sample(), scratch), "events:shop.order.created");
}

TEST(Destination, Errors) {
    const auto unknown = error_of([] { parse_destination("topic:x", amqp()); });
    EXPECT_EQ(unknown.message(), "unknown kind of destination \"topic\"");
    EXPECT_EQ(unknown.hint(), "Destinations for amqp are exchange:NAME and queue:NAME.");
    EXPECT_EQ(error_of([] { parse_destination("nope:x", redis()); }).hint(),
              "Destinations for redis are channel:NAME, stream:NAME and list:NAME.");
    for (const auto* text : {"orders", "", "{header:x}"}) {
        const auto error = error_of([&] { parse_destination(text, amqp()); });
        EXPECT_EQ(error.detail(), "A destination has the form kind:name.");
        EXPECT_NE(error.hint().find("queue:NAME"), std::string::npos);
    }
    EXPECT_EQ(error_of([] { parse_destination("queue:", amqp()); }).detail(), "The template is empty.");
    EXPECT_EQ(error_of([] { parse_destination(":x", amqp()); }).message(), "unknown kind of destination \"\"");
    EXPECT_NE(error_of([] { parse_destination("queue:{x}", amqp()); }).hint().find("{header:NAME}"), std::string::npos);
}

TEST(RouteOptions, Defaults) {
    const auto o = read_options("{}", amqp());
    EXPECT_EQ(o.order, Order::key);
    EXPECT_EQ(o.max_attempts, 0U);
    EXPECT_FALSE(o.max_age);
    EXPECT_FALSE(o.earliest);
    EXPECT_FALSE(o.from_wal);
}

TEST(RouteOptions, Values) {
    const auto o =
        read_options(R"({"order":"strict","max_attempts":2147483647,"max_age":"15 min","start":"earliest"})", amqp());
    EXPECT_EQ(o.order, Order::strict);
    EXPECT_EQ(o.max_attempts, 2147483647U);
    EXPECT_EQ(o.max_age, 15min);
    EXPECT_TRUE(o.earliest);
    EXPECT_EQ(read_options(R"({"max_attempts":3.0})", amqp()).max_attempts, 3U);
}

TEST(RouteOptions, MaxAge) {
    const auto age = [](const std::string& value) {
        return *read_options("{\"max_age\":" + value + '}', amqp()).max_age;
    };
    EXPECT_EQ(age("90"), 90s);
    EXPECT_EQ(age("0.25"), 250ms);
    EXPECT_EQ(age("\"90 s\""), 90s);
    EXPECT_EQ(age("\"90s\""), 90s);
    EXPECT_EQ(age("\"90\""), 90s);
    EXPECT_EQ(age("\"250 ms\""), 250ms);
    EXPECT_EQ(age("\"1.5 h\""), 90min);
    EXPECT_EQ(age("\"1 d\""), 24h);
    EXPECT_EQ(age("\"1 week\""), 7 * 24h);
    EXPECT_EQ(age("\"15 minutes\""), 15min);
    for (const auto* bad :
         {"0", "-1", "\"\"", "\"s\"", "\"1 month\"", "\"inf\"", "\"-3 s\"", "true", "null", "1e300", "\"1 s s\""}) {
        EXPECT_EQ(error_of([&] { age(bad); }).message(), "invalid value for route option \"max_age\"") << bad;
    }
}

TEST(RouteOptions, WrongValues) {
    for (const auto* bad : {R"({"order":"none"})", R"({"order":1})", R"({"start":"later"})", R"({"max_attempts":0})",
                            R"({"max_attempts":2147483648})", R"({"max_attempts":18446744073709551615})",
                            R"({"max_attempts":1.5})", R"({"max_attempts":"3"})"}) {
        const auto error = error_of([&] { read_options(bad, amqp()); });
        EXPECT_NE(error.message().find("invalid value for route option"), std::string::npos) << bad;
        EXPECT_FALSE(error.hint().empty()) << bad;
    }
    for (const auto* bad : {"", "[]", "nope", "7", "null"}) {
        EXPECT_EQ(error_of([&] { read_options(bad, amqp()); }).message(), "route options must be a JSON object");
    }
}

TEST(RouteOptions, FromTheWal) {
    const auto options = read_options(
        R"({"source": "wal", "tables": "shop.*, -shop.log", "messages": ["a.*", "b"], "operations": "insert, delete",
            "publication": "p", "format": "row", "origin": "none"})",
        redis());
    EXPECT_TRUE(options.from_wal);
    EXPECT_EQ(options.wal.tables, "shop.*, -shop.log");
    EXPECT_EQ(options.wal.messages, "a.*, b");
    EXPECT_EQ(options.wal.operations, "insert, delete");
    EXPECT_EQ(options.wal.publication, "p");
    EXPECT_EQ(options.wal.format, "row");
    EXPECT_TRUE(options.wal.local_only);
    EXPECT_FALSE(read_options(R"({"source": "wal", "origin": "any"})", redis()).wal.local_only);
    EXPECT_FALSE(read_options(R"({"source": "log"})", redis()).from_wal);
    for (const char* bad :
         {R"({"tables": "a.b"})", R"({"source": "wal", "start": "earliest"})", R"({"source": "x"})",
          R"({"source": "wal", "operations": "upsert"})", R"({"source": "wal", "operations": ""})",
          R"({"source": "wal", "format": "avro"})", R"({"source": "wal", "tables": [1]})", R"({"origin": "none"})",
          R"({"source": "wal", "origin": "local"})", R"({"source": "wal", "origin": true})"})
        EXPECT_THROW(read_options(bad, redis()), BadInput) << bad;
}

TEST(RouteOptions, UnknownAndAnotherProtocols) {
    const auto unknown = error_of([] { read_options(R"({"ttl":5})", redis()); });
    EXPECT_EQ(unknown.message(), "unknown route option \"ttl\"");
    EXPECT_EQ(
        unknown.hint(),
        "Route options for redis are order, max_attempts, max_age, start, source, maxlen; with \"source\": \"wal\" "
        "also tables, publication, operations, messages, format, origin.");
    const auto other = error_of([] { read_options(R"({"qos":1})", redis()); });
    EXPECT_EQ(other.message(), "route option \"qos\" is not for redis");
    EXPECT_EQ(
        other.hint(),
        "Route options for redis are order, max_attempts, max_age, start, source, maxlen; with \"source\": \"wal\" "
        "also tables, publication, operations, messages, format, origin.");
}

TEST(Route, PutTogether) {
    const Route route(7, "orders", "exchange:shop", "shop.#", "{}", amqp());
    EXPECT_EQ(route.id, 7U);
    EXPECT_EQ(route.name, "orders");
    EXPECT_TRUE(route.topics.matches("shop.x"));
    EXPECT_EQ(route.addressing.kind, "exchange");
    EXPECT_FALSE(route.addressing.varies);
    EXPECT_TRUE(route.has_routing_key);
    std::string scratch;
    EXPECT_EQ(route.routing_key.render(sample(), scratch), "shop.order.created");
    const Route queue(8, "q", "queue:shop", "#", "{}", amqp());
    EXPECT_FALSE(queue.has_routing_key);
    EXPECT_EQ(queue.routing_key.render(sample(), scratch), "");
    const Route fanout(9, "f", "exchange:shop", "#", R"({"routing_key":""})", amqp());
    EXPECT_TRUE(fanout.has_routing_key);
    EXPECT_EQ(fanout.routing_key.render(sample(), scratch), "");
    const Route by_key(9, "f", "exchange:shop", "#", R"({"routing_key":"k.{key}"})", amqp());
    EXPECT_EQ(by_key.routing_key.render(sample(), scratch), "k.order-17");
    const Route stream(9, "s", "stream:shop", "#", R"({"maxlen":5})", redis());
    EXPECT_EQ(*static_cast<const Read*>(stream.addressing.own.get()), (Read{{"kind", "stream"}, {"maxlen", "5"}}));
    auto silent = mqtt();
    silent.read_route = nullptr;
    const Route sensor(9, "m", "topic:{topic/}", "#", "{}", silent);
    EXPECT_FALSE(sensor.addressing.own) << "a module may have nothing to read";
    EXPECT_FALSE(sensor.has_routing_key);
    EXPECT_TRUE(sensor.addressing.varies);
}

TEST(Route, WhatIsWrong) {
    EXPECT_THROW(Route(1, "q", "list:x", "#", R"({"maxlen":10})", redis()), BadInput) << "says the module";
    EXPECT_THROW(Route(1, "q", "list:x", "#", R"({"max_attempts":0})", redis()), BadInput);
    EXPECT_THROW(Route(1, "q", "queue:x", "a..b", "{}", amqp()), BadInput);
    EXPECT_THROW(Route(1, "q", "exchange:x", "#", R"({"routing_key":"{nope}"})", amqp()), BadInput);
}

// What stands in a destination besides placeholders is in every event's name.
TEST(Route, LiteralPartsThatNoNameMayHave) {
    auto with_rules = mqtt();
    with_rules.flaw_in_name = [](std::string_view part) {
        const auto at = part.find_first_of("+#");
        return at == std::string_view::npos ? std::string() : std::string("has a \"") + part[at] + '"';
    };
    with_rules.longest_name = 20;
    const auto refused = [&](const std::string& destination, const broker::Module& module) {
        return error_of([&] { Route(1, "r", destination, "#", "{}", module); });
    };
    EXPECT_EQ(refused("topic:shop/+/x", with_rules).message(), "destination has a \"+\"");
    for (const auto* text : {"topic:#", "topic:shop/{key}/+", "topic:{topic/}/#"}) {
        const auto error = refused(text, with_rules);
        EXPECT_NE(error.detail().find("mqtt"), std::string::npos) << text;
        EXPECT_FALSE(error.hint().empty()) << text;
    }
    EXPECT_EQ(refused("topic:" + std::string(21, 't'), with_rules).detail(), "It is 21 bytes long.");
    EXPECT_EQ(refused("topic:{key}" + std::string(21, 't'), with_rules).detail(),
              "It is 21 bytes long, what its placeholders stand for not counted.");
    EXPECT_NO_THROW(Route(1, "r", "topic:{header:a+#}" + std::string(20, 't'), "shop.#", "{}", with_rules));
    EXPECT_NO_THROW(Route(1, "r", "stream:+#", "#", "{}", redis()));
}

// Whoever makes a route, or an event for it, makes no sender hold gigabytes, or look for a header a million times.
TEST(Route, TextsAreBounded) {
    const std::string many(router::longest_text, 'q');
    EXPECT_NO_THROW(Route(1, "r", "list:" + many, "#", "{}", redis()));
    EXPECT_EQ(error_of([&] { Route(1, "r", "list:q" + many, "#", "{}", redis()); }).message(), "template is too long");
    EXPECT_EQ(
        error_of([&] { Route(1, "r", "exchange:x", "#", R"({"routing_key":"q)" + many + "\"}", amqp()); }).message(),
        "template is too long");
    std::string patterns = "a";
    while (patterns.size() <= router::longest_text) patterns += ",a";
    EXPECT_EQ(error_of([&] { Route(1, "r", "list:l", patterns, "{}", redis()); }).message(), "topics are too long");
}

TEST(Template, OfMoreThanAnyNameHasThereIsNoMoreThanThat) {
    std::string text;
    while (text.size() < router::longest_text - 20) text += "{header:h}";
    const std::string headers = R"({"h":")" + std::string(1 << 20, 'h') + "\"}";
    auto event = sample();
    event.headers = headers;
    std::string scratch;
    const auto made = Template(text).render(event, scratch).size();
    EXPECT_GT(made, router::longest_text);
    EXPECT_LE(made, router::longest_text + (1 << 20));
}

TEST(Route, PatternsHaveNoControlCharacters) {
    const auto error = error_of([] { Route(1, "r", "stream:x", "a.\xc2\x85", "{}", redis()); });
    EXPECT_EQ(error.detail(), "A pattern has no control characters: U+0085.");
    EXPECT_NO_THROW(Route(1, "r", "stream:x", "a.\xc2\xa0,\n\tb.*", "{}", redis()));
}

}  // namespace
}  // namespace eventbus::router
