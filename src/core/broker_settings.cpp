// What it is: the reader of broker options and password files; see broker_settings.hpp.
// Who calls it: create_broker and alter_broker (to check), the sender (to connect).
// Never: prints a password, or reads more of a file than a password can be long.
#include "core/broker_settings.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/bad_input.hpp"
#include "core/duration.hpp"

namespace eventbus {

namespace {

using Json = nlohmann::json;

constexpr std::size_t most_password_bytes = 64 * 1024;

constexpr std::array<std::string_view, 10> common_names = {
    "password_file", "ca_file",         "crl_file",        "cert_file", "key_file",
    "verify",        "tls_min_version", "connect_timeout", "heartbeat", "window"};
constexpr std::array<std::string_view, 5> protocol_names = {"confirm_timeout", "version", "client_id", "session_expiry",
                                                            "will"};

using Names = std::span<const std::string_view>;

bool has(Names names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::string known_options(Names of_protocol) {
    std::string text;
    for (const Names names : {Names(common_names), of_protocol}) {
        for (const auto name : names) text += (text.empty() ? "Known options: " : ", ") + std::string(name);
    }
    return text + ".";
}

[[noreturn]] void wrong(const std::string& name, std::string detail, Names of_protocol) {
    throw BadInput("invalid value for broker option \"" + name + "\"", std::move(detail), known_options(of_protocol));
}

// One option's value, as its type.
struct Option {
    const std::string& name;
    const Json& value;
    Names of_protocol;

    [[noreturn]] void wrong(std::string detail) const { eventbus::wrong(name, std::move(detail), of_protocol); }

    std::string text(const char* what) const {
        const auto* text = value.get_ptr<const std::string*>();
        if (!text || text->empty() || text->find('\0') != std::string::npos) wrong(what);
        return *text;
    }
    bool boolean() const {
        if (!value.is_boolean()) wrong("It must be true or false.");
        return value.get<bool>();
    }
    std::uint32_t whole_number(std::uint32_t least, std::uint32_t most) const {
        const double number = value.is_number() ? value.get<double>() : -1;
        if (!(number >= least && number <= most) || number != std::floor(number))
            wrong("It must be a whole number from " + std::to_string(least) + " to " + std::to_string(most) + ".");
        return static_cast<std::uint32_t>(number);
    }
    double duration() const {
        const auto* text = value.get_ptr<const std::string*>();
        if (text != nullptr) return read_duration(*text).value_or(-1);
        return value.is_number() ? value.get<double>() : -1;
    }
    std::uint32_t milliseconds() const {
        const double seconds = duration();
        if (!(seconds > 0 && seconds <= 300))
            wrong(std::string("It must be ") + duration_form + ", above 0 and at most 300 s.");
        return static_cast<std::uint32_t>(std::ceil(seconds * 1000));
    }
    std::uint32_t whole_seconds(std::uint32_t most) const {
        const double seconds = duration();
        if (!(seconds >= 0 && seconds <= most) || seconds != std::floor(seconds))
            wrong(std::string("It must be ") + duration_form + ", in whole seconds from 0 to " + std::to_string(most) +
                  ".");
        return static_cast<std::uint32_t>(seconds);
    }
    TlsVersion tls_version() const {
        if (value == "1.2") return TlsVersion::v1_2;
        if (value == "1.3") return TlsVersion::v1_3;
        wrong("It must be \"1.2\" or \"1.3\".");
    }
    MqttVersion version() const {
        if (value == "5" || value == 5) return MqttVersion::v5;
        if (value == "3.1.1") return MqttVersion::v3_1_1;
        wrong("It must be \"5\" or \"3.1.1\".");
    }
    std::string client_id() const {
        std::string id = text(client_id_form);
        if (id.size() > most_mqtt_bytes) wrong(client_id_form);
        return id;
    }
    Will will() const {
        if (!value.is_object() || !value.contains("topic")) wrong(will_form);
        Will will;
        for (const auto& [key, part] : value.items()) {
            const auto* text = part.get_ptr<const std::string*>();
            if (key == "topic" && text && is_mqtt_topic(*text)) {
                will.topic = *text;
            } else if (key == "payload" && text && text->size() <= most_mqtt_bytes) {
                will.payload = *text;
            } else if (key == "qos" && part.is_number_integer() && part >= 0 && part <= 2) {
                will.qos = part.get<int>();
            } else if (key == "retain" && part.is_boolean()) {
                will.retain = part.get<bool>();
            } else {
                wrong(will_form);
            }
        }
        return will;
    }

 private:
    static constexpr std::size_t most_mqtt_bytes = 65535;
    static constexpr const char* client_id_form = "It must be a text of 1 to 65535 bytes.";
    static constexpr const char* will_form =
        "It must be an object of \"topic\" (a text without \"+\" and \"#\") and, if wanted, \"payload\" (a text of at "
        "most 65535 bytes), \"qos\" (0, 1 or 2) and \"retain\" (true or false).";

    static bool is_mqtt_topic(const std::string& text) {
        return !text.empty() && text.size() <= most_mqtt_bytes &&
               text.find_first_of(std::string_view("+#\0", 3)) == std::string::npos;
    }
};

void read_option(BrokerOptions& options, const Option& option) {
    constexpr const char* file = "It must be the name of a file.";
    const std::string& name = option.name;
    if (name == "password_file") {
        options.password_file = option.text(file);
    } else if (name == "ca_file") {
        options.ca_file = option.text(file);
    } else if (name == "crl_file") {
        options.crl_file = option.text(file);
    } else if (name == "cert_file") {
        options.cert_file = option.text(file);
    } else if (name == "key_file") {
        options.key_file = option.text(file);
    } else if (name == "verify") {
        options.verify = option.boolean();
    } else if (name == "tls_min_version") {
        options.tls_min_version = option.tls_version();
    } else if (name == "connect_timeout") {
        options.connect_timeout_ms = option.milliseconds();
    } else if (name == "heartbeat") {
        options.heartbeat_s = option.whole_seconds(3600);
    } else if (name == "window") {
        options.window = option.whole_number(1, 1'000'000);
    } else if (name == "confirm_timeout") {
        options.confirm_timeout_s = option.whole_seconds(3600);
    } else if (name == "version") {
        options.version = option.version();
    } else if (name == "client_id") {
        options.client_id = option.client_id();
    } else if (name == "session_expiry") {
        options.session_expiry_s = option.whole_seconds(4'294'967'295);
    } else if (name == "will") {
        options.will = option.will();
    }
}

[[noreturn]] void no_password(const std::string& file, const std::string& detail) {
    throw BadInput("could not read password file \"" + file + "\"", detail,
                   "\"password_file\" names a file on the server that holds nothing but the password.");
}

std::string read_small_file(const std::string& file) {
    // O_NONBLOCK: a FIFO must not hold us up.
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) no_password(file, std::strerror(errno));
    struct Closer {
        int fd;
        ~Closer() { close(fd); }
    } closer{fd};
    struct stat what {};
    if (fstat(fd, &what) != 0) no_password(file, std::strerror(errno));
    if (!S_ISREG(what.st_mode)) no_password(file, "It is not a regular file.");

    std::string contents(most_password_bytes + 1, '\0');
    std::size_t length = 0;
    while (length < contents.size()) {
        const ssize_t got = read(fd, contents.data() + length, contents.size() - length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) no_password(file, std::strerror(errno));
        if (got == 0) break;
        length += static_cast<std::size_t>(got);
    }
    if (length > most_password_bytes) no_password(file, "It is larger than 64 kB.");
    contents.resize(length);
    return contents;
}

}  // namespace

void check_broker_option(const std::string& name, std::string_view protocol, Names protocol_options) {
    if (has(protocol_names, name) && !has(protocol_options, name))
        throw BadInput("broker option \"" + name + "\" is not for " + std::string(protocol), {},
                       known_options(protocol_options));
    if (!has(protocol_names, name) && !has(common_names, name))
        throw BadInput("unknown broker option \"" + name + "\"", {}, known_options(protocol_options));
}

BrokerOptions read_broker_options(std::string_view options_json, std::string_view protocol, Names protocol_options) {
    const Json json = Json::parse(options_json, nullptr, false);
    if (json.is_discarded() && options_json.starts_with('{'))
        throw BadInput("broker options hold a number out of range", {}, known_options(protocol_options));
    if (!json.is_object()) throw BadInput("broker options must be a JSON object", {}, known_options(protocol_options));
    BrokerOptions options;
    for (const auto& [name, value] : json.items()) {
        check_broker_option(name, protocol, protocol_options);
        read_option(options, {name, value, protocol_options});
        options.given.insert(name);
    }
    return options;
}

void check_tls_options(const BrokerSettings& settings, std::string_view tls_scheme) {
    const BrokerOptions& options = settings.options;
    if (options.cert_file.empty() != options.key_file.empty())
        throw BadInput("broker options \"cert_file\" and \"key_file\" belong together", "Only one of them is given.",
                       "Give the client's certificate and its key, or neither.");
    if (settings.url.scheme == tls_scheme) return;
    const char* misplaced = !options.ca_file.empty()                    ? "ca_file"
                            : !options.crl_file.empty()                 ? "crl_file"
                            : !options.cert_file.empty()                ? "cert_file"
                            : !options.verify                           ? "verify"
                            : options.given.contains("tls_min_version") ? "tls_min_version"
                                                                        : nullptr;
    if (misplaced != nullptr)
        throw BadInput(std::string("broker option \"") + misplaced + "\" needs TLS",
                       "The scheme " + settings.url.scheme + ":// is without TLS.",
                       "Use " + std::string(tls_scheme) + ":// for TLS, or leave the option out.");
}

void find_idle_options(const BrokerSettings& settings, IdleOptions& idle) {
    const BrokerOptions& options = settings.options;
    if (!options.verify && !options.ca_file.empty())
        idle.add("ca_file", "With \"verify\": false no certificate is checked.");
    if (!options.verify && !options.crl_file.empty())
        idle.add("crl_file", "With \"verify\": false no certificate is checked.");
}

void load_password(BrokerSettings& settings) {
    const auto& file = settings.options.password_file;
    if (file.empty()) {
        settings.password = settings.url.password;
        return;
    }
    if (settings.url.has_password)
        throw BadInput("broker has two passwords", "One is in the URL and one in the password file.",
                       "Leave the password out of the URL, or the option \"password_file\" out of the options.");
    const std::string contents = read_small_file(file);
    static constexpr const char* blanks = " \t\r\n\f\v";
    const auto first = contents.find_first_not_of(blanks);
    if (first == std::string::npos) no_password(file, "It is empty.");
    settings.password = contents.substr(first, contents.find_last_not_of(blanks) - first + 1);
    if (settings.password.find('\0') != std::string::npos) no_password(file, "It contains a zero byte.");
}

}  // namespace eventbus
