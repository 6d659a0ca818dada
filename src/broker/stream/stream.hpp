// What it is: a non-blocking byte stream over TCP, a unix socket or TLS, name look-up included.
// Who calls it: the drivers whose protocol runs over one connection (redis, amqp, mqtt).
// Never: blocks, retries or knows a protocol.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "broker/driver.hpp"
#include "core/broker_settings.hpp"

namespace eventbus::broker {

struct TlsSettings {
    bool enabled = false;
    bool verify = true;     // the chain and the host name
    std::string ca_file;    // PEM; empty: the system's
    std::string crl_file;   // PEM: of every authority in the chain; empty: none
    std::string cert_file;  // PEM, with key_file: a client certificate
    std::string key_file;
    TlsVersion least = TlsVersion::v1_2;
    std::string scheme;  // of the URL: what a server that speaks no TLS is told by
};

TlsSettings tls_settings(const BrokerSettings& settings, bool enabled);

class Stream {
 public:
    enum class State : std::uint8_t { connecting, open, closed };
    static constexpr const char* closed_by_server = "the server closed the connection";  // in order: its error()

    // Starts to connect. Look-up runs in a thread of its own (all signals blocked) unless the host is numeric
    // or a unix socket; every address is tried in turn. TCP_NODELAY and keep-alive are set.
    Stream(const Host& host, TlsSettings tls);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    State state() const;
    Interest interest() const;         // fd and what to wait for, write included only while bytes are queued
    const std::string& error() const;  // why it is closed: "connection refused", "certificate has expired" …
    bool is_settings_error() const;    // certificate or key trouble rather than the network's
    bool left() const;                 // it stood, and the server closed or reset it
    // While it connects: what has not come yet, in words that " within 10 s" continues from.
    std::string missing() const;

    // Tells what has been reached of "connect" and "tls". False: it was not open yet, and look.step is where it is or
    // ended.
    bool look(Look& look) const;

    // Moves things on: connect, handshake, flush what is queued, read what has come. Returns state().
    State drive(Ready ready);

    // Queues bytes; drive() or flush() sends them.
    void write(std::string_view bytes);
    std::string& outbox();       // append to it directly; the same queue as write()
    void flush();                // sends as much as the socket takes now
    std::size_t unsent() const;  // bytes queued and not yet taken by the socket
    // What the peer makes us say by what it says is bounded: false when too many bytes of such answers were queued
    // since the socket last took what there was. The peer is to be left then, in these words.
    bool may_answer(std::size_t bytes);
    static constexpr const char* reads_no_answers = "the server continues asking and does not read our answers";

    // Received bytes not yet consumed.
    std::string_view inbox() const;
    void consume(std::size_t bytes);

    void close(std::string reason);

    // What the peer has not got when the connection ends, also by the death of this process,
    // never reaches it (RST). Without it the kernel continues sending for minutes where the network comes back late.
    void drop_unsent_at_close();

 private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace eventbus::broker
