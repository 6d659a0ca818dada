// What it is: a rabbitmq-c program that publishes messages like ours with confirms and a sliding window.
// Who calls it: bench/figures/drain.py, as the baseline for draining into a durable RabbitMQ queue.
// Never: reads a database; its messages are ready before its clock starts.
#include <amqp.h>
#include <amqp_tcp_socket.h>

#include "program.hpp"

namespace {

void check(const amqp_rpc_reply_t& reply, const char* what) {
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) bench::fail(what, amqp_error_string2(reply.library_error));
    bench::fail(what, "refused by the broker");
}

amqp_bytes_t bytes(const std::string& text) {
    return {text.size(), const_cast<char*>(text.data())};
}

amqp_table_entry_t header(const char* name, const std::string& value) {
    amqp_table_entry_t entry;
    entry.key = amqp_cstring_bytes(name);
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = bytes(value);
    return entry;
}

// Which deliveries the broker has confirmed; acks may come singly and out of order, or for all up to a tag.
class Confirms {
 public:
    explicit Confirms(std::int64_t count) : acked_(static_cast<std::size_t>(count) + 1) {}
    std::int64_t open(std::int64_t sent) const { return sent - done_; }

    void read_one(amqp_connection_state_t connection) {
        amqp_frame_t frame;
        const int status = amqp_simple_wait_frame(connection, &frame);
        if (status != AMQP_STATUS_OK) bench::fail("confirm", amqp_error_string2(status));
        if (frame.frame_type != AMQP_FRAME_METHOD) return;
        if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) bench::fail("confirm", "the broker did not ack");
        const auto* ack = static_cast<amqp_basic_ack_t*>(frame.payload.method.decoded);
        const std::uint64_t first = ack->multiple ? low_ : ack->delivery_tag;
        for (std::uint64_t tag = first; tag <= ack->delivery_tag; ++tag) {
            if (acked_[tag]) continue;
            acked_[tag] = true;
            ++done_;
        }
        while (low_ < acked_.size() && acked_[low_]) ++low_;
        amqp_maybe_release_buffers(connection);
    }

 private:
    std::vector<bool> acked_;
    std::uint64_t low_ = 1;
    std::int64_t done_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    const std::string& queue = arguments.text("queue");
    const std::string& payload = arguments.text("payload");
    const std::string& topic = arguments.text("topic");
    const std::string& source = arguments.text("source");
    const std::int64_t count = arguments.number("count");
    const std::int64_t window = arguments.number("window");
    const auto stamps = bench::make_stamps(count);

    const amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t* socket = amqp_tcp_socket_new(connection);
    const int port = static_cast<int>(arguments.number("port"));
    if (amqp_socket_open(socket, "127.0.0.1", port) != AMQP_STATUS_OK) bench::fail("connect", "failed");
    check(amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "login");
    amqp_channel_open(connection, 1);
    check(amqp_get_rpc_reply(connection), "channel.open");
    amqp_confirm_select(connection, 1);
    check(amqp_get_rpc_reply(connection), "confirm.select");

    amqp_basic_properties_t properties = {};
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG |
                        AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_APP_ID_FLAG |
                        AMQP_BASIC_HEADERS_FLAG;
    properties.content_type = amqp_cstring_bytes("application/json");
    properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
    properties.timestamp = static_cast<std::uint64_t>(time(nullptr));
    properties.type = bytes(topic);
    properties.app_id = bytes(source);
    amqp_table_entry_t entry;
    properties.headers = {1, &entry};

    Confirms confirms(count);
    const std::int64_t start = bench::now_ns();
    for (std::int64_t sent = 0; sent < count;) {
        const auto& stamp = stamps[static_cast<std::size_t>(sent)];
        properties.message_id = bytes(stamp.id);
        entry = header("event-time", stamp.time);
        const int status =
            amqp_basic_publish(connection, 1, amqp_empty_bytes, bytes(queue), true, false, &properties, bytes(payload));
        if (status != AMQP_STATUS_OK) bench::fail("publish", amqp_error_string2(status));
        ++sent;
        while (confirms.open(sent) >= window) confirms.read_one(connection);
    }
    while (confirms.open(count) > 0) confirms.read_one(connection);
    bench::print_rate(count, bench::now_ns() - start);

    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
}
