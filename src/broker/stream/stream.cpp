// What it is: a non-blocking byte stream over TCP, a unix socket or TLS; see stream.hpp.
// Who calls it: the drivers whose protocol runs over one connection (redis, amqp, mqtt).
// Never: blocks, retries, raises SIGPIPE or knows a protocol.
#include "broker/stream/stream.hpp"
#include "broker/stream/reply_budget.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "broker/stream/bytes.hpp"
#include "broker/stream/other_protocols.hpp"
#include "broker/stream/resolver.hpp"
#include "broker/stream/tls.hpp"

namespace eventbus::broker {

namespace {

constexpr std::size_t read_at_once = 64 * 1024;
constexpr std::size_t read_a_drive = 256 * 1024;
constexpr std::size_t records_at_once = 256 * 1024;

bool would_block(int error) {
    return error == EAGAIN || error == EWOULDBLOCK;
}

void set_option(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
}

}  // namespace

struct Stream::Impl {
    enum class Phase : std::uint8_t { resolving, connecting, handshaking, open, failing, closed };

    Host host;
    TlsSettings tls_settings;
    Phase phase = Phase::resolving;
    Phase reached = Phase::resolving;  // before it closed
    std::string tls_words;             // what was agreed on
    Lookup lookup;
    std::size_t next_address = 0;
    std::string refusals;  // what the last address said
    int fd = -1;
    std::optional<Tls> tls;
    std::vector<char> records;  // TLS: what the socket gave, on its way to the session
    Bytes inbox;
    std::string outbox;
    std::size_t sent = 0;                      // of the outbox
    std::uint64_t taken = 0;                   // ever
    std::uint64_t number = next_descriptor();  // the look-up's, then the socket's
    ReplyBudget answers;
    int send_error = 0;
    std::string error;
    bool settings_error = false;
    bool left = false;
    bool drop_unsent = false;

    Impl(const Host& to, TlsSettings with) : host(to), tls_settings(std::move(with)), lookup(host) {}
    ~Impl() { close_fd(); }

    void close_fd() {
        if (fd >= 0) ::close(fd);
        fd = -1;
    }
    void close(std::string reason) {
        if (phase == Phase::closed) return;
        if (phase != Phase::failing) reached = phase;
        phase = Phase::closed;
        error = std::move(reason);
        close_fd();
        tls.reset();
        std::string().swap(outbox);
        sent = 0;
    }
    void drop_unsent_of_fd() const {
        const linger at_once{1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    void lost(int why) {
        left |= phase != Phase::closed;
        if (why == EPIPE) return close(Stream::closed_by_server);
        close(std::string("lost the connection to the server: ") + std::strerror(why));
    }

    void resolve();
    void try_address();
    void finish_connect();
    void connected();
    void shake_hands();
    void receive();
    void ended(int why);
    void decrypt();
    void tls_failed();
    bool send_some(std::string_view bytes, std::size_t& taken);
    void send_records();
    void flush();
    void trim_outbox();
};

void Stream::Impl::resolve() {
    if (!lookup.finished()) return;
    if (lookup.addresses().empty())
        return close(lookup.error().empty() ? "could not resolve host name \"" + host.name + "\"" : lookup.error());
    phase = Phase::connecting;
    try_address();
}

// Continues to the next address until one is on its way; closes when there is none left.
void Stream::Impl::try_address() {
    while (next_address < lookup.addresses().size()) {
        const Address& address = lookup.addresses()[next_address++];
        const bool last = next_address == lookup.addresses().size();
        const int family = address.storage.ss_family;
        close_fd();
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        number = next_descriptor();
        if (fd < 0) {
            refusals = std::string("could not create a socket: ") + std::strerror(errno);
            continue;
        }
        if (family != AF_UNIX) {
            set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
            set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
            set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
            set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
            set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
            if (drop_unsent) drop_unsent_of_fd();
            // An address that swallows packets must leave time for the next one: two SYNs, three seconds.
            if (!last) set_option(fd, IPPROTO_TCP, TCP_SYNCNT, 1);
        }
        if (::connect(fd, address.get(), address.length) == 0) return connected();
        if (errno == EINPROGRESS) return;
        refusals = "could not connect to " + address.shown() + ": " + std::strerror(errno);
    }
    close(refusals);
}

void Stream::Impl::finish_connect() {
    pollfd waiting{fd, POLLOUT, 0};
    if (poll(&waiting, 1, 0) <= 0) return;
    int why = 0;
    socklen_t length = sizeof why;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &length) != 0) why = errno;
    if (why == 0) return connected();
    refusals = "could not connect to " + lookup.addresses()[next_address - 1].shown() + ": " + std::strerror(why);
    try_address();
}

void Stream::Impl::connected() {
    if (!tls_settings.enabled) {
        phase = Phase::open;
        return;
    }
    phase = Phase::handshaking;
    tls.emplace();
    if (!tls->start(tls_settings, host)) {
        settings_error = tls->is_settings_error();
        close(tls->error());
        return;
    }
    records.resize(read_at_once);
    tls->handshake();  // our first record, so that the interest asks for write
}

void Stream::Impl::shake_hands() {
    receive();
    if (phase != Phase::handshaking) return;
    const Tls::Step step = tls->handshake();
    if (step == Tls::Step::failed) return tls_failed();
    send_records();
    if (phase != Phase::handshaking || step != Tls::Step::done) return;
    tls_words = tls->about();
    phase = Phase::open;
    decrypt();  // what came along with the last handshake record
}

void Stream::Impl::tls_failed() {
    settings_error = tls->is_settings_error();
    const std::string words = tls->error();
    reached = phase;
    phase = Phase::failing;
    send_records();  // the alert
    close(words);
}

void Stream::Impl::receive() {
    std::size_t total = 0;
    while (total < read_a_drive) {
        char* into = tls ? records.data() : inbox.room(read_at_once);
        const ssize_t got = recv(fd, into, read_at_once, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && would_block(errno)) break;
        if (got <= 0) return ended(got < 0 ? errno : EPIPE);
        const auto bytes = static_cast<std::size_t>(got);
        total += bytes;
        if (tls) {
            tls->feed({records.data(), bytes});
            if (phase == Phase::open) decrypt();
            if (phase == Phase::closed) return;
        } else {
            inbox.commit(bytes);
        }
        if (bytes < read_at_once) break;
    }
}

// Nothing more will come. Last words first: an alert, or a reply that says why we are put out.
void Stream::Impl::ended(int why) {
    const bool shaking = phase == Phase::handshaking;
    if (shaking && tls->handshake() == Tls::Step::failed) return tls_failed();
    if (tls) decrypt();
    if (send_error != 0) why = send_error;
    if (!shaking) return lost(why);
    left = true;
    close((why == EPIPE ? std::string("the server closed the connection")
                        : std::string("lost the connection to the server: ") + std::strerror(why)) +
          " during the TLS handshake" + tls->if_it_speaks_none());
}

void Stream::Impl::decrypt() {
    if (phase != Phase::open) return;
    const Tls::Step step = tls->decrypt(inbox);
    if (step == Tls::Step::failed) return tls_failed();
    if (step == Tls::Step::done) lost(EPIPE);
    // Beyond what we have sent: the session's own answers, to requests for new keys.
    else if (tls->wire().size() > 2 * records_at_once)
        close(Stream::reads_no_answers);
}

// False when the socket takes no more, or is gone.
bool Stream::Impl::send_some(std::string_view bytes, std::size_t& taken) {
    taken = 0;
    for (;;) {
        const ssize_t put = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (put >= 0) {
            taken = static_cast<std::size_t>(put);
            return taken == bytes.size();
        }
        if (errno == EINTR) continue;
        if (would_block(errno)) return false;
        send_error = errno;
        if (phase != Phase::failing) receive();  // the server may have said why before it left
        lost(send_error);
        return false;
    }
}

void Stream::Impl::send_records() {
    Bytes& wire = tls->wire();
    if (wire.empty()) return;
    std::size_t taken = 0;
    send_some(wire.view(), taken);
    if (phase != Phase::closed) wire.consume(taken);
}

void Stream::Impl::flush() {
    if (phase != Phase::open) return;
    if (!tls) {
        if (sent == outbox.size()) return;
        std::size_t now = 0;
        send_some(std::string_view(outbox).substr(sent), now);
        if (phase == Phase::closed) return;
        sent += now;
        taken += now;
        return trim_outbox();
    }
    for (;;) {
        while (sent < outbox.size() && tls->wire().size() < records_at_once) {
            const std::size_t now = tls->encrypt(std::string_view(outbox).substr(sent));
            if (now == 0) return close("TLS could not encrypt");
            sent += now;
            taken += now;
        }
        send_records();
        if (phase == Phase::closed) return;
        trim_outbox();
        if (!tls->wire().empty() || outbox.empty()) return;
    }
}

void Stream::Impl::trim_outbox() {
    if (sent == outbox.size()) {
        outbox.clear();
        sent = 0;
        if (outbox.capacity() > kept_capacity) std::string().swap(outbox);
    } else if (sent > read_a_drive && sent > outbox.size() / 2) {
        outbox.erase(0, sent);
        sent = 0;
    }
}

TlsSettings tls_settings(const BrokerSettings& settings, bool enabled) {
    const BrokerOptions& options = settings.options;
    return {enabled,           options.verify,   options.ca_file,         options.crl_file,
            options.cert_file, options.key_file, options.tls_min_version, settings.url.scheme};
}

Stream::Stream(const Host& host, TlsSettings tls) : impl_(std::make_unique<Impl>(host, std::move(tls))) {
    impl_->resolve();
}

Stream::~Stream() = default;

Stream::State Stream::state() const {
    switch (impl_->phase) {
        case Impl::Phase::open:
            return State::open;
        case Impl::Phase::failing:
        case Impl::Phase::closed:
            return State::closed;
        default:
            return State::connecting;
    }
}

std::string Stream::missing() const {
    const std::string host = impl_->host.shown();
    switch (impl_->phase) {
        case Impl::Phase::resolving:
            return "no answer to the look-up of " + host;
        case Impl::Phase::handshaking:
            return host + " took the connection, but does not answer the TLS handshake (it may not speak TLS" +
                   (impl_->tls_settings.scheme.empty()
                        ? ")"
                        : "; use " + scheme_without_tls(impl_->tls_settings.scheme) + ":// then)");
        default:
            return "could not connect to " + host;
    }
}

bool Stream::look(Look& look) const {
    const Impl& impl = *impl_;
    const bool ended = impl.phase == Impl::Phase::closed || impl.phase == Impl::Phase::failing;
    const Impl::Phase reached = ended ? impl.reached : impl.phase;
    look.step = "connect";
    if (reached < Impl::Phase::handshaking) return false;
    look.found("connect", impl.lookup.addresses()[impl.next_address - 1].shown());
    if (!impl.tls_settings.enabled) return true;
    look.step = "tls";
    if (reached != Impl::Phase::open) return false;
    look.found("tls", impl.tls_words);
    return true;
}

Interest Stream::interest() const {
    switch (impl_->phase) {
        case Impl::Phase::resolving:
            return {impl_->lookup.fd(), true, false, impl_->number};
        case Impl::Phase::connecting:
            return {impl_->fd, false, true, impl_->number};
        case Impl::Phase::handshaking:
            return {impl_->fd, true, !impl_->tls->wire().empty(), impl_->number};
        case Impl::Phase::open:
            return {impl_->fd, true, unsent() > 0, impl_->number};
        default:
            break;
    }
    return {};
}

const std::string& Stream::error() const {
    return impl_->error;
}
bool Stream::left() const {
    return impl_->left;
}
bool Stream::is_settings_error() const {
    return impl_->settings_error;
}

Stream::State Stream::drive(Ready ready) {
    Impl& impl = *impl_;
    if (impl.phase == Impl::Phase::resolving) impl.resolve();
    if (impl.phase == Impl::Phase::connecting) impl.finish_connect();
    if (impl.phase == Impl::Phase::handshaking) impl.shake_hands();
    if (impl.phase == Impl::Phase::open) impl.flush();
    if (impl.phase == Impl::Phase::open && ready.read) {
        impl.receive();
        if (impl.phase == Impl::Phase::open && impl.tls) impl.send_records();
    }
    return state();
}

void Stream::write(std::string_view bytes) {
    impl_->outbox.append(bytes);
}
std::string& Stream::outbox() {
    return impl_->outbox;
}
void Stream::flush() {
    impl_->flush();
}

std::size_t Stream::unsent() const {
    return impl_->outbox.size() - impl_->sent + (impl_->tls ? impl_->tls->wire().size() : 0);
}

bool Stream::may_answer(std::size_t bytes) {
    return impl_->answers.allows(bytes, impl_->taken, impl_->outbox.size() - impl_->sent);
}

std::string_view Stream::inbox() const {
    return impl_->inbox.view();
}
void Stream::consume(std::size_t bytes) {
    impl_->inbox.consume(bytes);
}
void Stream::close(std::string reason) {
    impl_->close(std::move(reason));
}
void Stream::drop_unsent_at_close() {
    impl_->drop_unsent = true;
    if (impl_->fd >= 0) impl_->drop_unsent_of_fd();
}

}  // namespace eventbus::broker
