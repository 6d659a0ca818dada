// What it is: what outlives a connection: our client id, what is known of MQTT 5, packet ids that may be in use.
// Who calls it: the MQTT driver; one session for each broker, client id and URL of this process.
// Never: holds an event's bytes: delivery offers the event again.
//
// A message with QoS 2 that was open when its connection broke may have arrived. When the broker still has our session,
// the event goes out under its old packet id when it is offered again, and a broker that has it already takes it for
// what it is: the same message. But a session belongs to whoever has the client id: were there another client with
// ours, the ids in it could be that one's, and a new message under one of those would be swallowed. So only an id that
// nobody else can have keeps a session: it is made again in each process, which knows of no older packet ids
// anyway.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "broker/mqtt/mqtt_options.hpp"

namespace eventbus::broker::mqtt {

// The event, the route and the name make the message.
struct MessageKey {
    EventId event;
    std::uint32_t lane = 0;
    std::string name;
    auto operator<=>(const MessageKey&) const = default;
};

struct Session {
    enum class Stage : std::uint8_t {
        published,  // the broker has not answered: it goes out again under its id
        received,   // PUBREC has come: PUBREL goes out again
        complete,   // all has been said: the event counts as delivered when it is offered again
    };
    struct StreamHistory {
        std::uint16_t id = 0;
        Stage stage = Stage::published;
        std::uint64_t order = 0;  // of those that were received: PUBRELs keep it (MQTT 5.0, 4.6)
    };

    // What speaks against MQTT 5: of the last connections in a row.
    struct Doubt {
        unsigned hang_ups = 0;   // on CONNECT
        bool answers_3 = false;  // MQTT 3.1.1, at the moment of the last one
    };

    std::string client_id;
    bool exclusive = false;              // nobody else can have the client id
    bool took_5 = false;                 // MQTT 5 has worked
    bool worked = false;                 // a login has
    std::map<std::string, Doubt> doubt;  // by host
    std::string host;                    // which one has the session; empty: none
    bool in_doubt = false;               // it was asked for and no answer came: a new one may be there in its place
    std::map<MessageKey, StreamHistory> past;
    std::uint64_t received = 0;  // PUBRECs so far
    std::size_t alone = 0;       // so many of the next messages go out one at a time: one of them ended the connection
    unsigned hang_ups = 0;       // in a row, each soon after the login: perhaps another client has our id
    std::chrono::milliseconds patience{0};  // of the last connection, which was given up for missing acknowledgements

    // The broker knows nothing of us: what is not complete is sent again.
    void lost() {
        host.clear();
        in_doubt = false;
        std::erase_if(past, [](const auto& entry) { return entry.second.stage != Stage::complete; });
    }
    // The message of that packet id, if there is one that is not complete.
    StreamHistory* find(std::uint16_t id);
    void forget(std::uint16_t id);
};

std::shared_ptr<Session> session_of(const BrokerSettings& settings);

// For a driver that only looks: nobody else's, with a client id that puts nobody out.
std::shared_ptr<Session> session_to_look(const BrokerSettings& settings);

// What every broker must accept: 23 letters and digits. Some tell the source and the broker's name, the others are
// drawn by lot: a copy of the server or of the database has another id than the original.
std::string new_client_id(const BrokerSettings& settings);

}  // namespace eventbus::broker::mqtt
