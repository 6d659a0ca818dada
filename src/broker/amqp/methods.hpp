// What it is: what an AMQP broker says to a publisher: methods, and the headers of contents.
// Who calls it: the AMQP driver, with what frames hold.
// Never: looks into a table's values that are tables, or hands out a field that did not come. rabbitmq-c's decoder is
// not used: it follows nested tables as deep as they go, and leaves fields as they were that a content's header does
// not have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "broker/amqp/codec.hpp"

namespace eventbus::broker::amqp {

// Of each method only the fields that it has, and of these only what is looked at. Texts are views of the frame.
struct Method {
    amqp_method_number_t id = 0;
    bool is_heard = false;  // a publisher has to do with it; of others there is the id alone
    bool is_whole = false;  // all its fields came

    unsigned code = 0;  // connection.close, channel.close, basic.return
    std::string_view text;
    amqp_method_number_t about = 0;  // connection.close, channel.close; 0: of none
    std::string_view exchange;       // basic.return
    std::string_view routing_key;
    std::uint64_t tag = 0;  // basic.ack, basic.nack
    bool multiple = false;
    bool active = false;          // channel.flow
    std::string_view properties;  // connection.start: the server's, a table
    std::string_view mechanisms;
    std::size_t channel_max = 0;  // connection.tune; 0: no limit
    std::size_t frame_max = 0;
    std::size_t heartbeat_s = 0;
};
Method read_method(std::string_view payload);

// The text that has a name in a table; empty where there is none, or what is before it cannot be read.
std::string_view text_in_table(std::string_view table, std::string_view name);

// queue.declare-ok.
struct QueueCounts {
    std::uint64_t messages = 0;
    std::uint64_t consumers = 0;
};
QueueCounts read_queue_counts(std::string_view payload);

struct ContentHeader {
    std::uint64_t body_size = 0;
    std::string_view message_id;  // empty where there is none
};
ContentHeader read_content_header(std::string_view payload);

}  // namespace eventbus::broker::amqp
