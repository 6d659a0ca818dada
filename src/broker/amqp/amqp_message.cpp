// What it is: one event as the frames of a basic.publish; see amqp_message.hpp.
// Who calls it: the AMQP driver, when it is offered an event.
// Never: writes half a message, or one that would make the broker close the connection.
#include "broker/amqp/amqp_message.hpp"

#include <algorithm>

namespace eventbus::broker::amqp {

namespace {

constexpr std::uint8_t transient = 1;
constexpr std::uint8_t persistent = 2;

std::string too_long(std::string_view what, std::string_view text) {
    if (text.size() <= short_string_max) return {};
    return std::string(what) + " is " + std::to_string(text.size()) + " bytes long; AMQP takes at most 255";
}

}  // namespace

MessageWriter::MessageWriter(std::string_view source) : source_(source.substr(0, short_string_max)) {
    const bool is_cut = source_.size() < source.size();
    while (is_cut && !source_.empty() && (static_cast<unsigned char>(source[source_.size()]) & 0xC0) == 0x80)
        source_.pop_back();  // not in the middle of a UTF-8 character
}

std::string MessageWriter::write(FrameWriter& frames, std::string& out, std::uint16_t channel,
                                 const Outgoing& outgoing) {
    const Event& event = *outgoing.event;
    const bool queue = is_queue(outgoing);
    std::string problem = too_long(queue ? "the queue's name" : "the exchange's name", outgoing.name);
    if (problem.empty() && !queue) problem = too_long("the routing key", outgoing.routing_key);
    if (problem.empty()) problem = too_long("the content type", event.content_type);
    if (problem.empty()) problem = too_long("the topic", event.topic);
    if (!problem.empty()) return problem;

    amqp_basic_properties_t properties{};
    EventIdText id;
    properties.message_id = to_bytes(to_text(event.id, id));
    properties.type = to_bytes(event.topic);
    properties.content_type = to_bytes(event.content_type);
    properties.timestamp = static_cast<std::uint64_t>(std::max<std::int64_t>(0, event.published_at / 1'000'000));
    properties.app_id = to_bytes(source_);
    properties.delivery_mode = route_of(*outgoing.addressing).persistent ? persistent : transient;
    properties._flags = AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG |
                        AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    problem = headers_.fill(event, properties);
    if (!problem.empty()) return problem;

    const std::size_t before = out.size();
    const Address address = address_of(outgoing);
    const amqp_basic_publish_t publish{.ticket = 0,
                                       .exchange = to_bytes(address.exchange),
                                       .routing_key = to_bytes(address.routing_key),
                                       .mandatory = 1,
                                       .immediate = 0};
    frames.method(out, channel, AMQP_BASIC_PUBLISH_METHOD, &publish);  // two short strings always fit
    if (!frames.header(out, channel, properties, event.payload.size())) {
        out.resize(before);
        return "key and headers are too long: the broker takes at most " + std::to_string(frames.frame_max()) +
               " bytes of them (frame_max)";
    }
    frames.body(out, channel, event.payload);
    return {};
}

}  // namespace eventbus::broker::amqp
