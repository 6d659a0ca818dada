// What it is: the reader of broker options and password files; see settings.hpp.
// Who calls it: create_broker and alter_broker (to check), the sender (to connect).
// Never: prints a password, or reads more of a file than a password can be long.
#include "core/settings.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/bad_input.hpp"

namespace eventbus {

namespace {

using Json = nlohmann::json;

constexpr std::size_t most_password_bytes = 64 * 1024;
constexpr const char* known_options =
    "Known options: password_file, ca_file, cert_file, key_file, verify, connect_timeout, heartbeat, window.";

[[noreturn]] void wrong(const std::string& name, std::string detail) {
    throw BadInput("invalid value for broker option \"" + name + "\"", std::move(detail), known_options);
}

std::string file_name(const std::string& name, const Json& value) {
    const auto* text = value.get_ptr<const std::string*>();
    if (!text || text->empty() || text->find('\0') != std::string::npos) wrong(name, "It must be the name of a file.");
    return *text;
}

std::uint32_t whole_number(const std::string& name, const Json& value, std::uint32_t least, std::uint32_t most) {
    const double number = value.is_number() ? value.get<double>() : -1;
    if (!(number >= least && number <= most) || number != std::floor(number))
        wrong(name, "It must be a whole number from " + std::to_string(least) + " to " + std::to_string(most) + ".");
    return static_cast<std::uint32_t>(number);
}

std::uint32_t timeout_ms(const std::string& name, const Json& value) {
    const double seconds = value.is_number() ? value.get<double>() : 0;
    if (!(seconds > 0 && seconds <= 300)) wrong(name, "It must be a number of seconds above 0 and at most 300.");
    return static_cast<std::uint32_t>(std::ceil(seconds * 1000));
}

void read_option(BrokerOptions& options, const std::string& name, const Json& value) {
    if (name == "password_file") {
        options.password_file = file_name(name, value);
    } else if (name == "ca_file") {
        options.ca_file = file_name(name, value);
    } else if (name == "cert_file") {
        options.cert_file = file_name(name, value);
    } else if (name == "key_file") {
        options.key_file = file_name(name, value);
    } else if (name == "verify") {
        if (!value.is_boolean()) wrong(name, "It must be true or false.");
        options.verify = value.get<bool>();
    } else if (name == "connect_timeout") {
        options.connect_timeout_ms = timeout_ms(name, value);
    } else if (name == "heartbeat") {
        options.heartbeat_s = whole_number(name, value, 0, 3600);
    } else if (name == "window") {
        options.window = whole_number(name, value, 1, 1'000'000);
    } else {
        throw BadInput("unknown broker option \"" + name + "\"", {}, known_options);
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

BrokerOptions read_broker_options(std::string_view options_json) {
    const Json json = Json::parse(options_json, nullptr, false);
    if (json.is_discarded() && options_json.starts_with('{'))
        throw BadInput("broker options hold a number out of range", {}, known_options);
    if (!json.is_object()) throw BadInput("broker options must be a JSON object", {}, known_options);
    BrokerOptions options;
    for (const auto& [name, value] : json.items()) read_option(options, name, value);
    return options;
}

void check_tls_options(const BrokerSettings& settings, std::string_view tls_scheme) {
    const BrokerOptions& options = settings.options;
    if (options.cert_file.empty() != options.key_file.empty())
        throw BadInput("broker options \"cert_file\" and \"key_file\" belong together", "Only one of them is given.",
                       "Give the client's certificate and its key, or neither.");
    if (settings.url.scheme == tls_scheme) return;
    const char* misplaced = !options.ca_file.empty()     ? "ca_file"
                            : !options.cert_file.empty() ? "cert_file"
                            : !options.verify            ? "verify"
                                                         : nullptr;
    if (misplaced != nullptr)
        throw BadInput(std::string("broker option \"") + misplaced + "\" needs TLS",
                       "The scheme " + settings.url.scheme + ":// is without TLS.",
                       "Use " + std::string(tls_scheme) + ":// for TLS, or leave the option out.");
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
