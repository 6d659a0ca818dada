// What it is: tests of the AMQP driver that only looks: what it asks, what it makes of the answers.
// Who calls it: make -C test/unit amqp.
// Never: needs a real broker.
#include "amqp_fake_broker.hpp"
#include "amqp_harness.hpp"
#include "look_support.hpp"

namespace eventbus::broker::amqp {
namespace {

using test::expect_no_part;
using test::expect_part;

std::string text(std::string_view words) {
    const auto size = static_cast<std::uint32_t>(words.size());
    std::string out;
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift);
    return out + std::string(words);
}
std::string entry(std::string_view name, char kind, std::string_view value) {
    return static_cast<char>(name.size()) + std::string(name) + kind + std::string(value);
}

const std::string properties = entry("capabilities", 'F', text(entry("publisher_confirms", 't', "\1"))) +
                               entry("cluster_name", 'S', text("rabbit@here")) +
                               entry("product", 'S', text("RabbitMQ")) + entry("version", 'S', text("3.10.8"));

// Lets the client in, with those properties, and continues.
FakeBroker::Script after_login(std::string table, FakeBroker::Script script) {
    return [table = std::move(table), script = std::move(script)](Peer& peer) {
        peer.read_protocol_header();
        peer.raw(1, 0, std::string("\0\x0a\0\x0a\0\x09", 6) + text(table) + text("PLAIN") + text("en_US"));
        peer.expect(AMQP_CONNECTION_START_OK_METHOD);
        peer.method(0, AMQP_CONNECTION_TUNE_METHOD, amqp_connection_tune_t{2047, 131072, 60});
        peer.expect(AMQP_CONNECTION_TUNE_OK_METHOD);
        peer.expect(AMQP_CONNECTION_OPEN_METHOD);
        peer.method(0, AMQP_CONNECTION_OPEN_OK_METHOD, amqp_connection_open_ok_t{});
        script(peer);
        peer.wait_for_end();
    };
}

std::string looked(FakeBroker::Script script, const std::string& kind = "", const std::string& name = "",
                   bool varies = false, std::string table = properties) {
    FakeBroker broker(after_login(std::move(table), std::move(script)));
    const auto findings =
        test::look(settings_for("amqp://app:hunter2-secret@127.0.0.1:" + std::to_string(broker.port())), kind, name,
                   varies, std::chrono::seconds(2));
    const std::string found = test::shown(findings);
    expect_no_part(found, "hunter2");
    return found;
}

void opened(Peer& peer, amqp_method_number_t asked) {
    peer.expect(AMQP_CHANNEL_OPEN_METHOD);
    peer.expect(asked);
    peer.method(1, AMQP_CHANNEL_OPEN_OK_METHOD, amqp_channel_open_ok_t{});
}

const auto nothing = [](Peer&) {};

}  // namespace

TEST(AmqpLook, SaysWhatTheBrokerIs) {
    const std::string found = looked(nothing);
    expect_part(found, "login: yes as user \"app\", virtual host \"/\"");
    expect_part(found,
                "broker: yes RabbitMQ 3.10.8, cluster rabbit@here; frames of at most 131072 bytes, 2047 channels, "
                "heartbeat 30 s");
    expect_part(looked(nothing, "", "", false, ""), "broker: yes an AMQP broker that does not say which; frames");
    for (const std::string& odd : {std::string("\xff"), entry("product", 'S', "\xff\xff\xff\xff"),
                                   entry("x", '?', "x") + properties, entry("product", 'F', text("x"))})
        expect_part(looked(nothing, "", "", false, odd), "does not say which");
    expect_part(looked(nothing, "", "", false, entry("product", 'S', text("hunter2-secret"))), "broker: yes ***");
    EXPECT_LT(looked(nothing, "", "", false, entry("product", 'S', text(std::string(60000, 'x')))).size(), 600u);
}

TEST(AmqpLook, DeclaresPassively) {
    expect_part(looked(
                    [](Peer& peer) {
                        peer.expect(AMQP_CHANNEL_OPEN_METHOD);
                        const auto method = peer.expect(AMQP_EXCHANGE_DECLARE_METHOD);
                        EXPECT_TRUE(method.as<amqp_exchange_declare_t>().passive);
                        EXPECT_EQ(to_view(method.as<amqp_exchange_declare_t>().exchange), "orders");
                        peer.method(1, AMQP_CHANNEL_OPEN_OK_METHOD, amqp_channel_open_ok_t{});
                        peer.method(1, AMQP_EXCHANGE_DECLARE_OK_METHOD, amqp_exchange_declare_ok_t{});
                    },
                    "exchange", "orders"),
                "destination: yes exchange 'orders' is there | permission: unknown AMQP does not tell");
    expect_part(looked(
                    [](Peer& peer) {
                        peer.expect(AMQP_CHANNEL_OPEN_METHOD);
                        const auto method = peer.expect(AMQP_QUEUE_DECLARE_METHOD);
                        EXPECT_TRUE(method.as<amqp_queue_declare_t>().passive);
                        peer.method(1, AMQP_CHANNEL_OPEN_OK_METHOD, amqp_channel_open_ok_t{});
                        peer.method(1, AMQP_QUEUE_DECLARE_OK_METHOD, amqp_queue_declare_ok_t{to_bytes("q"), 3, 1});
                    },
                    "queue", "q"),
                "destination: yes queue 'q' is there, with 3 messages and 1 consumer");
    expect_part(looked(nothing, "exchange", "shop.{topic}", true),
                "destination: unknown its name is made of each event");
}

TEST(AmqpLook, SaysWhatIsMissing) {
    const auto refused = [](std::uint16_t code, const std::string& words, amqp_method_number_t asked,
                            const char* kind) {
        return looked(
            [=](Peer& peer) {
                opened(peer, asked);
                peer.close_channel(1, code, words);
            },
            kind, "x");
    };
    const std::string found =
        refused(404, "NOT_FOUND - no exchange 'x' in vhost '/'", AMQP_EXCHANGE_DECLARE_METHOD, "exchange");
    expect_part(found, "destination: no 404 NOT_FOUND - no exchange 'x' in vhost '/'");
    expect_no_part(found, "permission");
    expect_part(refused(403, "ACCESS_REFUSED", AMQP_QUEUE_DECLARE_METHOD, "queue"),
                "destination: no 403 ACCESS_REFUSED");
    expect_part(refused(405, "RESOURCE_LOCKED", AMQP_QUEUE_DECLARE_METHOD, "queue"),
                "destination: yes 405 RESOURCE_LOCKED");
}

TEST(AmqpLook, SilenceAndEndsNameTheStep) {
    expect_part(looked([](Peer& peer) { opened(peer, AMQP_QUEUE_DECLARE_METHOD); }, "queue", "q"),
                "| destination: no no answer within 2 s");
    expect_part(looked(
                    [](Peer& peer) {
                        opened(peer, AMQP_QUEUE_DECLARE_METHOD);
                        peer.close_connection(320, "CONNECTION_FORCED");
                    },
                    "queue", "q"),
                "destination: no 320 CONNECTION_FORCED");
    FakeBroker silent([](Peer& peer) { peer.wait_for_end(); });
    expect_part(test::last(test::look(settings_for(url_of(silent.port())), "", "", false, std::chrono::seconds(1))),
                "login: no the broker did not greet within 1 s");
}

TEST(AmqpLook, TakesNoMessages) {
    FakeBroker broker(after_login(properties, nothing));
    auto settings = settings_for(url_of(broker.port()));
    settings.look_ms = 5000;
    Driven driven(settings);
    ASSERT_TRUE(driven.until_state(LinkState::up));
    EXPECT_FALSE(driven.offer(1, event_of(1), to_queue, "q"));
}

}  // namespace eventbus::broker::amqp
