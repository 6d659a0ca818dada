// What a driver that only looks asks an AMQP broker; see amqp_inquiry.hpp.
// Who calls it: the AMQP driver.
#include "broker/amqp/amqp_inquiry.hpp"

#include "broker/amqp/methods.hpp"

namespace eventbus::broker::amqp {

namespace {

constexpr std::size_t longest_word = 100;

std::string word_of(std::string_view properties, std::string_view name) {
    return printable(text_in_table(properties, name).substr(0, longest_word));
}

std::string counted(std::uint64_t count, const char* what) {
    return std::to_string(count) + ' ' + what + (count == 1 ? "" : "s");
}

}  // namespace

void Inquiry::met(std::string_view server_properties) {
    product_ = word_of(server_properties, "product");
    if (product_.empty()) product_ = "an AMQP broker that does not say which";
    if (const std::string version = word_of(server_properties, "version"); !version.empty()) product_ += ' ' + version;
    if (const std::string cluster = word_of(server_properties, "cluster_name"); !cluster.empty())
        product_ += ", cluster " + cluster;
}

void Inquiry::ask(FrameWriter& frames, std::string& out) {
    if (target_.name.empty() || target_.addressing.varies || target_.name.size() > short_string_max) return;
    asked_ = true;
    const amqp_channel_open_t open{};
    frames.method(out, channel, AMQP_CHANNEL_OPEN_METHOD, &open);
    if (is_queue()) {
        amqp_queue_declare_t declare{};
        declare.queue = to_bytes(target_.name);
        declare.passive = 1;
        frames.method(out, channel, AMQP_QUEUE_DECLARE_METHOD, &declare);
    } else {
        amqp_exchange_declare_t declare{};
        declare.exchange = to_bytes(target_.name);
        declare.type = to_bytes("topic");  // which no broker compares, of a passive one
        declare.passive = 1;
        frames.method(out, channel, AMQP_EXCHANGE_DECLARE_METHOD, &declare);
    }
}

std::string Inquiry::named() const {
    return std::string(is_queue() ? "queue" : "exchange") + " '" + printable(target_.name) + "'";
}

bool Inquiry::take(const Frame& frame) {
    if (frame.type != AMQP_FRAME_METHOD || answered_) return false;
    const Method method = read_method(frame.payload);
    switch (method.id) {
        case AMQP_EXCHANGE_DECLARE_OK_METHOD:
            answered_ = true;
            destination_ = {"destination", Finding::Answer::yes, named() + " is there", {}};
            return false;
        case AMQP_QUEUE_DECLARE_OK_METHOD: {
            const QueueCounts counts = read_queue_counts(frame.payload);
            answered_ = true;
            destination_ = {"destination",
                            Finding::Answer::yes,
                            named() + " is there, with " + counted(counts.messages, "message") + " and " +
                                counted(counts.consumers, "consumer"),
                            {}};
            return false;
        }
        case AMQP_CHANNEL_CLOSE_METHOD:
            close_told(method.code, method.text);
            return true;
        default:
            return false;
    }
}

void Inquiry::close_told(unsigned code, std::string_view text) {
    answered_ = true;
    destination_ = {"destination", Finding::Answer::no, words(code, text), {}};
    if (code == AMQP_NOT_FOUND) {
        destination_.hint = "Declare the " + named() +
                            " on the broker, in the virtual host of the URL, or name another " +
                            "destination with eventbus.alter_route. Until then its events wait.";
    } else if (code == AMQP_ACCESS_REFUSED) {
        destination_.hint = "Give the broker's user the right to it.";
    } else if (code == AMQP_RESOURCE_LOCKED) {  // publishing to it is allowed all the same
        destination_.answer = Finding::Answer::yes;
        destination_.hint = "The queue goes with the connection that it belongs to.";
    }
}

void Inquiry::tell(Look& look, const Limits& limits) const {
    look.found("broker", product_ + "; frames of at most " + std::to_string(limits.frame_max) + " bytes, " +
                             counted(limits.channel_max, "channel") + ", " +
                             (limits.heartbeat_s == 0 ? std::string("no heartbeat")
                                                      : "heartbeat " + std::to_string(limits.heartbeat_s) + " s"));
    if (!asked_) return;
    look.step = "destination";
    if (!answered_) return;
    look.findings.push_back(destination_);
    if (destination_.answer != Finding::Answer::yes) return;
    look.found("permission",
               std::string("AMQP does not tell before a message is published whether the user may publish to it") +
                   (is_queue() ? "" : ", nor whether a queue is bound for a routing key"),
               Finding::Answer::unknown);
}

}  // namespace eventbus::broker::amqp
