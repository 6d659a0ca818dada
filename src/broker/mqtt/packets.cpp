// What it is: MQTT control packets to and from bytes; see packets.hpp.
// Who calls it: the MQTT driver and its messages.
// Never: copies what it reads, or believes a length.
#include "broker/mqtt/packets.hpp"

#include <algorithm>

namespace eventbus::broker::mqtt {

namespace {

constexpr std::size_t longest_answer = 1024 * 1024;  // of what a broker has to say to a publisher

unsigned first_byte(Type type, unsigned flags = 0) {
    return static_cast<unsigned>(type) << 4 | flags;
}

// Takes apart a packet's body; `broken` when it ends too early.
class Reader {
 public:
    explicit Reader(std::string_view bytes) : rest_(bytes) {}

    bool empty() const { return rest_.empty(); }
    bool broken() const { return broken_; }

    std::uint32_t number(std::size_t bytes) {
        std::uint32_t value = 0;
        for (const char c : take(bytes)) value = value << 8 | static_cast<unsigned char>(c);
        return value;
    }
    std::string_view string() { return take(number(2)); }
    std::size_t variable() {
        std::size_t value = 0;
        for (int shift = 0; shift < 28; shift += 7) {
            const auto byte = number(1);
            value |= static_cast<std::size_t>(byte & 0x7f) << shift;
            if (byte < 0x80) return value;
        }
        broken_ = true;
        return 0;
    }
    Reader part(std::size_t bytes) { return Reader(take(bytes)); }

 private:
    std::string_view take(std::size_t bytes) {
        if (bytes > rest_.size()) {
            broken_ = true;
            rest_ = {};
            return {};
        }
        const auto taken = rest_.substr(0, bytes);
        rest_.remove_prefix(bytes);
        return taken;
    }
    std::string_view rest_;
    bool broken_ = false;
};

// Hands every property to take(property, number, text). False: malformed.
template <class Take>
bool read_properties(Reader& body, Take&& take) {
    Reader list = body.part(body.variable());
    while (!list.empty() && !body.broken()) {
        const auto property = list.number(1);
        std::uint32_t number = 0;
        std::string_view text;
        switch (property) {
            case 0x01:
            case 0x17:
            case 0x19:
            case 0x24:
            case 0x25:
            case 0x28:
            case 0x29:
            case 0x2a:
                number = list.number(1);
                break;
            case 0x13:
            case 0x21:
            case 0x22:
            case 0x23:
                number = list.number(2);
                break;
            case 0x02:
            case 0x11:
            case 0x18:
            case 0x27:
                number = list.number(4);
                break;
            case 0x0b:
                number = static_cast<std::uint32_t>(list.variable());
                break;
            case 0x26:
                list.string();
                [[fallthrough]];
            case 0x03:
            case 0x08:
            case 0x09:
            case 0x12:
            case 0x15:
            case 0x16:
            case 0x1a:
            case 0x1c:
            case 0x1f:
                text = list.string();
                break;
            default:
                return false;
        }
        if (list.broken()) return false;
        take(static_cast<Property>(property), number, text);
    }
    return !body.broken();
}

}  // namespace

void append_variable(std::string& out, std::size_t number) {
    do {
        const auto more = number >> 7;
        append_byte(out, static_cast<unsigned>((number & 0x7f) | (more > 0 ? 0x80 : 0)));
        number = more;
    } while (number > 0);
}

std::size_t variable_size(std::size_t number) {
    return number < 128 ? 1 : number < 16384 ? 2 : number < 2097152 ? 3 : 4;
}

void append_connect(std::string& out, const Connect& connect) {
    const BrokerSettings& settings = *connect.settings;
    const bool v5 = connect.version == MqttVersion::v5;
    const bool has_user = settings.url.has_user;
    const bool has_password = !settings.password.empty();
    const Will* will = connect.will;

    std::string body;
    append_string(body, "MQTT");
    append_byte(body, static_cast<unsigned>(connect.version));
    unsigned flags = connect.clean_start ? 0x02 : 0;
    if (will != nullptr) flags |= 0x04U | static_cast<unsigned>(will->qos) << 3 | (will->retain ? 0x20U : 0U);
    append_byte(body, flags | (has_password ? 0x40U : 0U) | (has_user ? 0x80U : 0U));
    append_short(body, connect.keep_alive_s);
    if (v5) {
        const bool keeps_session = connect.session_expiry_s > 0;
        append_variable(body, keeps_session ? 5 : 0);
        if (keeps_session) {
            append_property(body, Property::session_expiry);
            append_long(body, connect.session_expiry_s);
        }
    }
    append_string(body, connect.client_id);
    if (will != nullptr) {
        if (v5) append_variable(body, 0);
        append_string(body, will->topic);
        append_string(body, will->payload);
    }
    if (has_user) append_string(body, settings.url.user);
    if (has_password) append_string(body, settings.password);

    append_byte(out, first_byte(Type::connect));
    append_variable(out, body.size());
    out += body;
}

void append_release(std::string& out, std::uint16_t id) {
    append_byte(out, first_byte(Type::pubrel, 2));
    append_byte(out, 2);
    append_short(out, id);
}

void append_ping(std::string& out) {
    append_byte(out, first_byte(Type::pingreq));
    append_byte(out, 0);
}

void append_good_bye(std::string& out, MqttVersion version) {
    append_byte(out, first_byte(Type::disconnect));
    if (version != MqttVersion::v5) return append_byte(out, 0);
    append_byte(out, 7);
    append_byte(out, 0);  // normal disconnection
    append_byte(out, 5);
    append_property(out, Property::session_expiry);
    append_long(out, 0);
}

Reading read_packet(std::string_view bytes, Packet& packet) {
    if (bytes.empty()) return Reading::partial;
    std::size_t length = 0;
    std::size_t at = 1;
    for (int shift = 0;; shift += 7, ++at) {
        if (at >= bytes.size()) return Reading::partial;
        const auto byte = static_cast<unsigned char>(bytes[at]);
        length |= static_cast<std::size_t>(byte & 0x7f) << shift;
        if (byte < 0x80) break;
        if (shift == 21) return Reading::broken;
    }
    if (length > longest_answer) return Reading::broken;
    packet.size = at + 1 + length;
    if (bytes.size() < packet.size) return Reading::partial;
    packet.type = static_cast<Type>(static_cast<unsigned char>(bytes[0]) >> 4);
    packet.body = bytes.substr(at + 1, length);
    return Reading::whole;
}

std::optional<Connack> read_connack(std::string_view body) {
    Reader reader(body);
    Connack connack;
    connack.session_present = (reader.number(1) & 1) != 0;
    connack.code = static_cast<std::uint8_t>(reader.number(1));
    if (reader.broken()) return {};
    if (reader.empty()) return connack;  // MQTT 3.1.1, or a refusal of MQTT 5 by a broker that does not know it
    const bool right = read_properties(reader, [&](Property property, std::uint32_t number, std::string_view text) {
        switch (property) {
            case Property::receive_maximum:
                connack.receive_maximum = std::max<std::uint32_t>(number, 1);
                break;
            case Property::maximum_packet:
                connack.maximum_packet = number;
                break;
            case Property::maximum_qos:
                connack.maximum_qos = static_cast<int>(number);
                break;
            case Property::retain_available:
                connack.retain_available = number != 0;
                break;
            case Property::server_keep_alive:
                connack.keep_alive_s = number;
                break;
            case Property::reason_string:
                connack.reason = text;
                break;
            default:
                break;
        }
    });
    if (!right) return {};
    return connack;
}

std::optional<Answer> read_answer(const Packet& packet) {
    Reader reader(packet.body);
    Answer answer;
    if (packet.type != Type::disconnect) answer.id = static_cast<std::uint16_t>(reader.number(2));
    if (!reader.empty()) answer.code = static_cast<std::uint8_t>(reader.number(1));
    if (reader.broken()) return {};
    if (reader.empty()) return answer;
    const bool right = read_properties(reader, [&](Property property, std::uint32_t, std::string_view text) {
        if (property == Property::reason_string) answer.reason = text;
    });
    if (!right) return {};
    return answer;
}

}  // namespace eventbus::broker::mqtt
