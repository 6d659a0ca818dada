// What it is: a broker's settings as the drivers take them: the parsed URL and the checked options.
// Who calls it: create_broker (to check), the sender (to connect).
// Never: prints a password; redacted() is the only way to show a URL.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/options.hpp"

namespace eventbus {

struct Host {
    std::string name;  // a DNS name, an IPv4 or IPv6 address (without brackets), or an absolute path of a unix socket
    std::uint16_t port = 0;  // 0 for unix sockets
    bool is_unix() const { return !name.empty() && name.front() == '/'; }
    std::string shown() const;  // host:port, [v6]:port or the path
};

// scheme://[user[:password]@]host[:port][,host[:port]…][/path][?name=value&…]; every part is percent-decoded.
// A unix socket is an empty host with the socket's path (redis:///run/redis.sock?db=1), or its path
// percent-encoded as the host (redis://%2Frun%2Fredis.sock/1).
struct Url {
    std::string scheme;  // lower case
    std::string user;
    std::string password;
    bool has_user = false;
    bool has_password = false;
    std::vector<Host> hosts;  // at least one, but of a scheme that has none
    std::string path;         // without its leading slash; decoded
    bool has_path = false;    // "amqp://h" and "amqp://h/" differ: the latter names the empty vhost
    std::map<std::string, std::string> query;
};

// Throws BadInput; its message never quotes the text, which may hold a password.
// default_port fills in hosts without a port. has_host: false for scheme:///path, where the path is no unix socket's
// and nothing stands before it.
Url parse_url(std::string_view text, std::uint16_t default_port, bool has_host = true);

// The scheme alone, lower case; throws BadInput where there is none.
std::string url_scheme(std::string_view text);

// The same URL with the password replaced by "***"; of an unparsable text nothing but the scheme is shown.
std::string redact_url(std::string_view text);

enum class TlsVersion : std::uint8_t { v1_2, v1_3 };

// The options that brokers of all protocols have, after checking.
struct BrokerOptions {
    std::set<std::string, std::less<>> given;  // the names of those that are not merely defaults, the protocol's too
    std::string password_file;
    std::string ca_file;
    std::string crl_file;
    std::string cert_file;
    std::string key_file;
    TlsVersion tls_min_version = TlsVersion::v1_2;
    bool verify = true;                        // check the server's certificate and host name
    std::uint32_t connect_timeout_ms = 10000;  // "connect_timeout", seconds: TCP, TLS and login together
    std::uint32_t heartbeat_s = 30;            // "heartbeat", seconds: 0 turns it off
    std::uint32_t window = 0;                  // "window": most unacknowledged messages; 0 is the driver's default
};

// What a protocol's module has read of options that only it has (Module in broker/driver.hpp): nobody else looks into
// it.
using Handle = std::shared_ptr<const void>;

struct BrokerSettings {
    std::string name;
    Url url;
    BrokerOptions options;
    Handle own;            // the module's own options
    std::string password;  // the URL's, or the password file's contents trimmed; set by load_password
    std::string source;    // eventbus.source: who we are, for app_id and its like
    // Not 0: for a driver that only looks (broker/driver.hpp), and is to be done with it after so long.
    std::uint32_t look_ms = 0;

    // How long the login may take, where the options or the URL say so much.
    std::uint32_t login_ms(std::uint32_t said) const { return look_ms == 0 ? said : std::min(said, look_ms); }
};

// Which options a broker has: the common ones, and its protocol's.
KnownOptions known_broker_options(std::string_view protocol = {}, OptionNames of_protocol = {});

BrokerOptions read_broker_options(const Options& options);  // throws BadInput

// TLS options make no sense without TLS, nor half of a client certificate. `tls_scheme` is the one to use instead.
// Throws BadInput.
void check_tls_options(const BrokerSettings& settings, std::string_view tls_scheme);

// Options that do nothing beside others, and why; literals. Their owner is told when the broker is made. They are no
// error, for what an older version took must continue to work.
struct IdleOption {
    const char* name = nullptr;
    const char* why = nullptr;  // a sentence
};
struct IdleOptions {
    std::array<IdleOption, 6> list{};
    std::size_t count = 0;
    void add(const char* name, const char* why) { list.at(count++) = {name, why}; }
};
void find_idle_options(const BrokerSettings& settings, IdleOptions& idle);  // of those that all protocols have

// Fills settings.password from the URL or the password file. Throws BadInput when the file can't be read.
void load_password(BrokerSettings& settings);

}  // namespace eventbus
