// What it is: broker::Stream without a socket, for fuzzers: bytes come from and go to fuzz::network.
// Who calls it: the drivers, in place of src/broker/stream/stream.cpp.
// Never: keeps what the driver has a view of where it was: whoever holds on to it too long is to be seen.
#include <cstring>
#include <memory>
#include <utility>

#include "broker/stream/reply_budget.hpp"
#include "broker/stream/stream.hpp"
#include "input.hpp"
#include "network.hpp"

namespace eventbus::broker {

namespace {
constexpr std::size_t at_once = 64 * 1024;
}

using fuzz::network;

struct Stream::Impl {
    State state = State::connecting;
    fuzz::Exact inbox{{}};
    std::string outbox;
    std::size_t sent = 0;
    std::uint64_t taken = 0;
    ReplyBudget answers;
    std::string error;

    void close(std::string reason) {
        if (state == State::closed) return;
        state = State::closed;
        error = std::move(reason);
        std::string().swap(outbox);
        sent = 0;
        network.unsent = 0;
    }
    void set_inbox(std::string bytes) {
        inbox = fuzz::Exact(bytes);
        network.unread = bytes.size();
    }
    void receive() {
        const std::size_t size = std::min(at_once, network.to_driver.size());
        if (size > 0) set_inbox(std::string(inbox.view()) + network.to_driver.substr(0, size));
        network.to_driver.erase(0, size);
        if (network.to_driver.empty() && network.ended) close(closed_by_server);
    }
    void flush() {
        if (state != State::open) return;
        if (network.ended && sent < outbox.size()) {  // as at a broken pipe: last words first
            receive();
            return close(closed_by_server);
        }
        if (network.takes) {
            network.from_driver.append(outbox, sent);
            taken += outbox.size() - sent;
            outbox.clear();
            sent = 0;
        }
        network.unsent = outbox.size() - sent;
    }
};

TlsSettings tls_settings(const BrokerSettings&, bool) {
    return {};
}

Stream::Stream(const Host&, TlsSettings) : impl_(std::make_unique<Impl>()) {
    network.unsent = network.unread = 0;
}
Stream::~Stream() = default;

Stream::State Stream::state() const {
    return impl_->state;
}
Interest Stream::interest() const {
    return {};
}
const std::string& Stream::error() const {
    return impl_->error;
}
bool Stream::left() const {
    return impl_->error == closed_by_server;
}
bool Stream::is_settings_error() const {
    return false;
}
bool Stream::look(Look& look) const {
    look.found("connect", "somewhere");
    return impl_->state != State::connecting;
}
std::string Stream::missing() const {
    return "could not connect";
}

Stream::State Stream::drive(Ready ready) {
    if (impl_->state == State::connecting) impl_->state = State::open;
    impl_->flush();
    if (impl_->state == State::open && ready.read) impl_->receive();
    return impl_->state;
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
    return impl_->outbox.size() - impl_->sent;
}
bool Stream::may_answer(std::size_t bytes) {
    return impl_->answers.allows(bytes, impl_->taken, unsent());
}
std::string_view Stream::inbox() const {
    return impl_->inbox.view();
}
void Stream::consume(std::size_t bytes) {
    impl_->set_inbox(std::string(impl_->inbox.view().substr(std::min(bytes, impl_->inbox.view().size()))));
}
void Stream::close(std::string reason) {
    impl_->close(std::move(reason));
}
void Stream::drop_unsent_at_close() {}

}  // namespace eventbus::broker
