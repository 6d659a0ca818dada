// What it is: what an AMQP broker says to a publisher; see methods.hpp.
// Who calls it: the AMQP driver.
// Never: believes a length.
#include "broker/amqp/methods.hpp"

namespace eventbus::broker::amqp {

namespace {

// Takes a payload apart, from its beginning; behind its end everything is 0 and empty, and `is_whole` false.
class Fields {
 public:
    explicit Fields(std::string_view payload) : rest_(payload) {}

    bool is_whole() const { return is_whole_; }
    std::uint64_t number(std::size_t bytes) {
        std::uint64_t value = 0;
        for (const char byte : take(bytes)) value = value << 8 | static_cast<unsigned char>(byte);
        return value;
    }
    std::string_view short_string() { return take(number(1)); }
    std::string_view long_string() { return take(number(4)); }
    bool empty() const { return rest_.empty(); }
    std::string_view take(std::uint64_t bytes) {
        if (bytes > rest_.size()) {
            is_whole_ = false;
            rest_ = {};
            return {};
        }
        const auto taken = rest_.substr(0, static_cast<std::size_t>(bytes));
        rest_.remove_prefix(taken.size());
        return taken;
    }

 private:
    std::string_view rest_;
    bool is_whole_ = true;
};

// Bytes of a table's value; RabbitMQ's kinds. Of texts, tables and the like a length comes first.
bool skip_value(Fields& fields, char kind) {
    switch (kind) {
        case 'V':
            return true;
        case 't':
        case 'b':
        case 'B':
            fields.take(1);
            return true;
        case 's':
        case 'u':
            fields.take(2);
            return true;
        case 'I':
        case 'i':
        case 'f':
            fields.take(4);
            return true;
        case 'D':
            fields.take(5);
            return true;
        case 'l':
        case 'L':
        case 'd':
        case 'T':
            fields.take(8);
            return true;
        case 'S':
        case 'x':
        case 'A':
        case 'F':
            fields.long_string();
            return true;
        default:
            return false;
    }
}

void read_words(Fields& fields, Method& method) {
    method.code = static_cast<unsigned>(fields.number(2));
    method.text = fields.short_string();
}

}  // namespace

Method read_method(std::string_view payload) {
    Fields fields(payload);
    Method method;
    method.id = static_cast<amqp_method_number_t>(fields.number(4));
    method.is_heard = true;
    switch (method.id) {
        case AMQP_CONNECTION_START_METHOD:
            fields.number(2);  // version
            method.properties = fields.long_string();
            method.mechanisms = fields.long_string();
            break;
        case AMQP_CONNECTION_TUNE_METHOD:
            method.channel_max = fields.number(2);
            method.frame_max = fields.number(4);
            method.heartbeat_s = fields.number(2);
            break;
        case AMQP_CONNECTION_CLOSE_METHOD:
        case AMQP_CHANNEL_CLOSE_METHOD:
            read_words(fields, method);
            method.about = static_cast<amqp_method_number_t>(fields.number(4));
            break;
        case AMQP_CONNECTION_BLOCKED_METHOD:
            method.text = fields.short_string();
            break;
        case AMQP_CONNECTION_OPEN_OK_METHOD:
        case AMQP_CONNECTION_UNBLOCKED_METHOD:
        case AMQP_CHANNEL_OPEN_OK_METHOD:
        case AMQP_CHANNEL_CLOSE_OK_METHOD:
            break;
        case AMQP_CHANNEL_FLOW_METHOD:
            method.active = (fields.number(1) & 1) != 0;
            break;
        case AMQP_BASIC_ACK_METHOD:
        case AMQP_BASIC_NACK_METHOD:
            method.tag = fields.number(8);
            method.multiple = (fields.number(1) & 1) != 0;
            break;
        case AMQP_BASIC_RETURN_METHOD:
            read_words(fields, method);
            method.exchange = fields.short_string();
            method.routing_key = fields.short_string();
            break;
        default:
            method.is_heard = false;
    }
    method.is_whole = fields.is_whole();
    return method;
}

std::string_view text_in_table(std::string_view table, std::string_view name) {
    Fields fields(table);
    while (!fields.empty()) {
        const bool is_it = fields.short_string() == name;
        const auto kind = static_cast<char>(fields.number(1));
        if (is_it) return kind == 'S' ? fields.long_string() : std::string_view();
        if (!skip_value(fields, kind)) break;
    }
    return {};
}

QueueCounts read_queue_counts(std::string_view payload) {
    Fields fields(payload);
    fields.number(4);
    fields.short_string();
    QueueCounts counts;
    counts.messages = fields.number(4);
    counts.consumers = fields.number(4);
    return counts;
}

ContentHeader read_content_header(std::string_view payload) {
    Fields fields(payload);
    ContentHeader header;
    const bool is_basic = fields.number(2) == AMQP_BASIC_CLASS;
    fields.number(2);  // weight
    header.body_size = fields.number(8);
    if (!is_basic) return header;
    const auto flags = fields.number(2);
    for (auto more = flags; (more & 1) != 0;) more = fields.number(2);
    const auto has = [flags](std::uint32_t flag) { return (flags & flag) != 0; };
    if (has(AMQP_BASIC_CONTENT_TYPE_FLAG)) fields.short_string();
    if (has(AMQP_BASIC_CONTENT_ENCODING_FLAG)) fields.short_string();
    if (has(AMQP_BASIC_HEADERS_FLAG)) fields.long_string();
    if (has(AMQP_BASIC_DELIVERY_MODE_FLAG)) fields.number(1);
    if (has(AMQP_BASIC_PRIORITY_FLAG)) fields.number(1);
    if (has(AMQP_BASIC_CORRELATION_ID_FLAG)) fields.short_string();
    if (has(AMQP_BASIC_REPLY_TO_FLAG)) fields.short_string();
    if (has(AMQP_BASIC_EXPIRATION_FLAG)) fields.short_string();
    if (has(AMQP_BASIC_MESSAGE_ID_FLAG)) header.message_id = fields.short_string();
    return header;
}

}  // namespace eventbus::broker::amqp
