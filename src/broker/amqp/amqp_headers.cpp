// What it is: an event's headers as AMQP properties and a header table; see amqp_headers.hpp.
// Who calls it: the AMQP messages, once an event.
// Never: lets a publisher's header replace one of ours, or drops one silently.
#include "broker/amqp/amqp_headers.hpp"

#include <charconv>
#include <limits>

#include "broker/amqp/frame.hpp"
#include "core/headers.hpp"

namespace eventbus::broker::amqp {

namespace {

constexpr std::uint64_t most_expiration = 4294967295;  // milliseconds; RabbitMQ closes the channel above it

amqp_field_value_t text_field(std::string_view text) {
    amqp_field_value_t field{};
    field.kind = AMQP_FIELD_KIND_UTF8;
    field.value.bytes = to_bytes(text);
    return field;
}

amqp_table_entry_t entry(std::string_view name, amqp_field_value_t value) {
    return {to_bytes(name), value};
}

// A string or a number that stands for an integer from 0 to `most`.
bool read_integer(const nlohmann::json& value, std::uint64_t most, std::uint64_t& out) {
    if (value.is_number_unsigned()) {
        out = value.get<std::uint64_t>();
    } else if (value.is_string()) {
        const auto& text = value.get_ref<const std::string&>();
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
        if (error != std::errc{} || end != text.data() + text.size()) return false;
    } else {
        return false;
    }
    return out <= most;
}

}  // namespace

amqp_field_value_t Headers::field(const Json& value) {
    amqp_field_value_t field{};
    switch (value.type()) {
        case Json::value_t::string:
            return text_field(value.get_ref<const std::string&>());
        case Json::value_t::boolean:
            field.kind = AMQP_FIELD_KIND_BOOLEAN;
            field.value.boolean = value.get<bool>();
            return field;
        case Json::value_t::number_unsigned:
            if (value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) break;
            [[fallthrough]];
        case Json::value_t::number_integer:
            // 32 bits where they do: some clients (pika 1.2) read 64 as unsigned.
            if (const auto number = value.get<std::int64_t>(); number == static_cast<std::int32_t>(number)) {
                field.kind = AMQP_FIELD_KIND_I32;
                field.value.i32 = static_cast<std::int32_t>(number);
            } else {
                field.kind = AMQP_FIELD_KIND_I64;
                field.value.i64 = number;
            }
            return field;
        case Json::value_t::number_float:
            break;
        case Json::value_t::array: {
            auto& items = arrays_.emplace_back();
            for (const Json& item : value) items.push_back(this->field(item));
            field.kind = AMQP_FIELD_KIND_ARRAY;
            field.value.array = {static_cast<int>(items.size()), items.data()};
            return field;
        }
        case Json::value_t::object:
            return text_field(keep(value.dump()));
        default:
            field.kind = AMQP_FIELD_KIND_VOID;
            return field;
    }
    field.kind = AMQP_FIELD_KIND_F64;
    field.value.f64 = value.get<double>();
    return field;
}

std::string Headers::add(const std::string& name, const Json& value, amqp_basic_properties_t& properties) {
    if (name == "event-key" || name == "event-time") return {};
    if (name == "correlation-id" || name == "reply-to") {
        const std::string_view text = value.is_string() ? value.get_ref<const std::string&>() : keep(value.dump());
        if (text.size() > short_string_max)
            return "header \"" + name + "\" is " + std::to_string(text.size()) + " bytes long; at most 255 can be sent";
        const bool is_correlation = name == "correlation-id";
        (is_correlation ? properties.correlation_id : properties.reply_to) = to_bytes(text);
        properties._flags |= is_correlation ? AMQP_BASIC_CORRELATION_ID_FLAG : AMQP_BASIC_REPLY_TO_FLAG;
        return {};
    }
    std::uint64_t number = 0;
    if (name == "expiration") {
        if (!read_integer(value, most_expiration, number))
            return "header \"expiration\" is not a number of milliseconds from 0 to 4294967295";
        properties.expiration = to_bytes(keep(std::to_string(number)));
        properties._flags |= AMQP_BASIC_EXPIRATION_FLAG;
        return {};
    }
    if (name == "priority") {
        if (!read_integer(value, 255, number)) return "header \"priority\" is not a number from 0 to 255";
        properties.priority = static_cast<std::uint8_t>(number);
        properties._flags |= AMQP_BASIC_PRIORITY_FLAG;
        return {};
    }
    if (name.size() > short_string_max)
        return "a header's name is " + std::to_string(name.size()) + " bytes long; at most 255 can be sent";
    entries_.push_back(entry(name, field(value)));
    return {};
}

std::string Headers::fill(const Event& event, amqp_basic_properties_t& properties) {
    texts_.clear();
    arrays_.clear();
    entries_.clear();
    if (event.key) entries_.push_back(entry("event-key", text_field(*event.key)));
    entries_.push_back(entry("event-time", text_field(rfc3339(event.published_at, time_))));
    if (!event.headers.empty()) {
        json_ = parse_headers(event.headers);
        if (!json_.is_object()) return "the headers are not a JSON object that can be sent";
        for (const auto& [name, value] : json_.items()) {
            if (std::string problem = add(name, value, properties); !problem.empty()) return problem;
        }
    }
    properties.headers = {static_cast<int>(entries_.size()), entries_.data()};
    properties._flags |= AMQP_BASIC_HEADERS_FLAG;
    return {};
}

}  // namespace eventbus::broker::amqp
