// What it is: the reader of the options that all brokers have, and of password files.
// Who calls it: create_broker and alter_broker (to check), the sender (to connect).
// Never: prints a password, or reads more of a file than a password can be long.
#include "core/broker_settings.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/bad_input.hpp"
#include "core/duration.hpp"

namespace eventbus {

namespace {

constexpr std::size_t most_password_bytes = 64 * 1024;

constexpr std::array<std::string_view, 10> common_names = {
    "password_file", "ca_file",         "crl_file",        "cert_file", "key_file",
    "verify",        "tls_min_version", "connect_timeout", "heartbeat", "window"};

std::uint32_t milliseconds(const Option& option) {
    const double seconds = option.seconds();
    if (!(seconds > 0 && seconds <= 300)) option.must_be(std::string(duration_form) + ", above 0 and at most 300 s");
    return static_cast<std::uint32_t>(std::ceil(seconds * 1000));
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

KnownOptions known_broker_options(std::string_view protocol, OptionNames of_protocol) {
    KnownOptions known{OptionsOf::broker, protocol, {common_names, of_protocol}, {}};
    for (const auto& names : known.names)
        for (const auto name : names) known.hint += (known.hint.empty() ? "Known options: " : ", ") + std::string(name);
    known.hint += '.';
    return known;
}

BrokerOptions read_broker_options(const Options& options) {
    BrokerOptions read;
    for (auto& name : options.names()) read.given.insert(std::move(name));
    const std::pair<const char*, std::string&> files[] = {{"password_file", read.password_file},
                                                          {"ca_file", read.ca_file},
                                                          {"crl_file", read.crl_file},
                                                          {"cert_file", read.cert_file},
                                                          {"key_file", read.key_file}};
    for (const auto& [name, file] : files)
        if (const auto given = options.find(name)) file = given->filled_text("the name of a file");
    if (const auto given = options.find("verify")) read.verify = given->boolean();
    if (const auto given = options.find("tls_min_version"))
        read.tls_min_version = given->one_of({"1.2", "1.3"}) == 0 ? TlsVersion::v1_2 : TlsVersion::v1_3;
    if (const auto given = options.find("connect_timeout")) read.connect_timeout_ms = milliseconds(*given);
    if (const auto given = options.find("heartbeat")) read.heartbeat_s = given->whole_seconds(3600);
    if (const auto given = options.find("window"))
        read.window = static_cast<std::uint32_t>(given->whole_number(1, 1'000'000));
    return read;
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
