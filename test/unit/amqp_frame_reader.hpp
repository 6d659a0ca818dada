// What it is: what is inside of AMQP frames, as rabbitmq-c's decoder sees it.
// Who calls it: the fake broker, with what our driver sends.
// Never: is the driver's own reader (broker/amqp/methods.hpp), which knows only what brokers say.
#pragma once

#include <string_view>

#include "broker/amqp/frame.hpp"

namespace eventbus::broker::amqp {

inline std::uint64_t number_of(std::string_view bytes) {
    std::uint64_t value = 0;
    for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
    return value;
}

// What is inside of a frame. Results are valid until release() and while the frame's bytes are.
class FrameReader {
 public:
    FrameReader() { init_amqp_pool(&pool_, 4096); }
    ~FrameReader() { empty_amqp_pool(&pool_); }
    FrameReader(const FrameReader&) = delete;
    FrameReader& operator=(const FrameReader&) = delete;

    struct Method {
        amqp_method_number_t id = 0;
        bool is_known = true;
        void* fields = nullptr;  // null where it can't be read
        template <typename Fields>
        const Fields& as() const {
            return *static_cast<const Fields*>(fields);
        }
    };
    struct Header {
        std::uint64_t body_size = 0;
        const amqp_basic_properties_t* properties = nullptr;  // null where it can't be read
        std::string_view message_id() const {                 // empty where there is none
            const bool has_one = properties != nullptr && (properties->_flags & AMQP_BASIC_MESSAGE_ID_FLAG) != 0;
            return has_one ? to_view(properties->message_id) : std::string_view{};
        }
    };
    Method method(std::string_view payload);
    Header header(std::string_view payload);
    void release() { recycle_amqp_pool(&pool_); }

 private:
    amqp_pool_t pool_;
};

inline FrameReader::Method FrameReader::method(std::string_view payload) {
    Method method;
    if (payload.size() < 4) return method;
    method.id = static_cast<amqp_method_number_t>(number_of(payload.substr(0, 4)));
    const int status = amqp_decode_method(method.id, &pool_, to_bytes(payload.substr(4)), &method.fields);
    if (status < 0) method.fields = nullptr;
    method.is_known = status != AMQP_STATUS_UNKNOWN_METHOD;
    return method;
}

inline FrameReader::Header FrameReader::header(std::string_view payload) {
    Header header;
    if (payload.size() < 12 || number_of(payload.substr(0, 2)) != AMQP_BASIC_CLASS) return header;
    header.body_size = number_of(payload.substr(4, 8));
    void* properties = nullptr;
    if (amqp_decode_properties(AMQP_BASIC_CLASS, &pool_, to_bytes(payload.substr(12)), &properties) >= 0)
        header.properties = static_cast<const amqp_basic_properties_t*>(properties);
    return header;
}

}  // namespace eventbus::broker::amqp
