// What it is: the AMQP module's face: what it says of itself, and which settings it refuses.
// Who calls it: make -C test/unit amqp.
// Never: opens a socket.
#include <algorithm>

#include "amqp_harness.hpp"
#include "core/bad_input.hpp"

namespace eventbus::broker::amqp {
namespace {

std::string problem_of(const BrokerSettings& settings) {
    try {
        IdleOptions idle;
        eventbus_driver_module()->read_broker(settings, Options({OptionsOf::broker, "amqp", {}, {}}, "{}"), idle);
    } catch (const BadInput& bad) {
        EXPECT_EQ(bad.message().find("secret"), std::string::npos);
        return bad.message() + "|" + bad.hint();
    }
    return "";
}

std::string problem_of(const std::string& url) {
    return problem_of(settings_for(url));
}

TEST(AmqpModule, SaysWhatItIs) {
    const Module& module = *eventbus_driver_module();
    EXPECT_EQ(module.build, this_build());
    EXPECT_STREQ(module.protocol, "amqp");
    EXPECT_EQ(std::vector<std::string_view>(module.kinds.begin(), module.kinds.end()),
              (std::vector<std::string_view>{"exchange", "queue"}));
    EXPECT_EQ(std::vector<std::string_view>(module.route_options.begin(), module.route_options.end()),
              (std::vector<std::string_view>{"routing_key", "persistent"}));
}

TEST(AmqpModule, TakesGoodUrls) {
    for (const char* url : {"amqp://h", "amqps://u:p@h/", "amqp://u@a,b:5673/v%2Fh", "amqp://h/v?heartbeat=0",
                            "amqp://h?heartbeat=10&connection_timeout=5000"})
        EXPECT_EQ(problem_of(url), "") << url;
}

TEST(AmqpModule, RefusesWhatMakesNoSense) {
    const auto contains = [](const std::string& text, const std::string& part) {
        return text.find(part) != std::string::npos;
    };
    EXPECT_TRUE(contains(problem_of("amqp://u:secret@h?vhost=x"), "heartbeat (seconds), connection_timeout"));
    EXPECT_TRUE(contains(problem_of("amqp://h?heartbeat=often"), "\"heartbeat\" is not a number"));
    EXPECT_TRUE(contains(problem_of("amqp://h?heartbeat=65536"), "0 to 65535"));
    EXPECT_TRUE(contains(problem_of("amqp://h?connection_timeout=0"), "timeout"));
    EXPECT_TRUE(contains(problem_of("amqp://%2Frun%2Fx.sock/"), "unix sockets"));
    EXPECT_TRUE(contains(problem_of("amqp://h/" + std::string(256, 'v')), "virtual host"));
    BrokerSettings settings = settings_for("amqp://h");
    settings.options.ca_file = "/ca.pem";
    EXPECT_TRUE(contains(problem_of(settings), "amqps"));
    settings = settings_for("amqps://h");
    settings.options.ca_file = "/ca.pem";
    EXPECT_EQ(problem_of(settings), "");
    settings.options.cert_file = "/cert.pem";
    EXPECT_TRUE(contains(problem_of(settings), "key_file"));
    settings.options.key_file = "/key.pem";
    EXPECT_EQ(problem_of(settings), "");
}

TEST(AmqpModule, ReadsRoutes) {
    const Module& module = *eventbus_driver_module();
    const auto read = [&](std::string_view kind, std::string_view json) {
        return module.read_route(kind, Options({OptionsOf::route, "amqp", {module.route_options}, {}}, json));
    };
    EXPECT_EQ(read("exchange", "{}").routing_key, "{topic}");
    EXPECT_EQ(read("exchange", R"({"routing_key":""})").routing_key, "");
    EXPECT_EQ(read("queue", "{}").routing_key, std::nullopt);
    EXPECT_TRUE(static_cast<const AmqpRoute*>(read("queue", "{}").own.get())->persistent);
    EXPECT_FALSE(static_cast<const AmqpRoute*>(read("queue", R"({"persistent":false})").own.get())->persistent);
    for (const auto& [kind, json] : {std::pair{"queue", R"({"routing_key":"a"})"},
                                     {"exchange", R"({"routing_key":7})"},
                                     {"queue", R"({"persistent":"yes"})"}})
        EXPECT_THROW(read(kind, json), BadInput) << json;
}

TEST(AmqpModule, ReadsItsOptionsOfABroker) {
    BrokerSettings settings = settings_for("amqp://h?heartbeat=5");
    EXPECT_EQ(test::take_options(settings).count, 0u);
    EXPECT_EQ(options_of(settings).confirm_timeout_s, 60u);
    EXPECT_STREQ(test::take_options(settings, R"({"confirm_timeout":"1 h","heartbeat":7})").list[0].name, "heartbeat");
    EXPECT_EQ(options_of(settings).confirm_timeout_s, 3600u);
    EXPECT_THROW(test::take_options(settings, R"({"confirm_timeout":3601})"), BadInput);
}

}  // namespace
}  // namespace eventbus::broker::amqp
