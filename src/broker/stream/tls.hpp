// What it is: one TLS client session between two memory BIOs: bytes in, bytes out, no socket.
// Who calls it: the stream, which moves the records.
// Never: touches a file descriptor, prompts for a pass phrase, or leaves an exit handler behind.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>

#include "broker/stream/bytes.hpp"
#include "broker/stream/stream.hpp"

namespace eventbus::broker {

class Tls {
 public:
    enum class Step : std::uint8_t { again, done, failed };

    // Reads the certificate files; false: see error().
    bool start(const TlsSettings& settings, const Host& host);

    Step handshake();
    std::size_t encrypt(std::string_view plain);  // how much was taken; its records are on the wire
    void feed(std::string_view records);          // what the socket received
    Step decrypt(Bytes& plain);                   // done: the peer has closed

    std::string if_it_speaks_none() const;  // behind the handshake's end: what to write where nothing was said

    // Version and cipher, and how long the server's certificate is valid; once the handshake is done.
    std::string about() const;

    Bytes& wire() { return wire_; }  // records to send
    const std::string& error() const { return error_; }
    bool is_settings_error() const { return is_settings_error_; }

 private:
    struct Free {
        void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
        void operator()(SSL* session) const { SSL_free(session); }
    };
    bool load_files(const TlsSettings& settings);
    bool refuse_file(const char* option, const std::string& file, const std::string& why);
    bool readable(const char* option, const std::string& file);
    Step fail(const char* when);
    std::string no_tls() const;
    void drain();

    std::unique_ptr<SSL_CTX, Free> context_;
    std::unique_ptr<SSL, Free> session_;
    BIO* incoming_ = nullptr;  // both are the session's
    BIO* outgoing_ = nullptr;
    Bytes wire_;
    std::string scheme_;
    std::string heard_;  // the server's first bytes, for as long as the handshake continues
    std::string error_;
    bool is_settings_error_ = false;
};

}  // namespace eventbus::broker
