// What it is: which ticket a closed channel blames, and how far the damage reaches; see lane.hpp.
// Who calls it: the AMQP driver, when the broker has closed a channel.
// Never: blames a ticket that the broker's words may not mean.
#include <charconv>
#include <optional>

#include "broker/amqp/frame.hpp"
#include "broker/amqp/lane.hpp"

namespace eventbus::broker::amqp {

namespace {

constexpr std::string_view topic_mark = "topic '";
constexpr std::string_view exchange_mark = "exchange '";
constexpr std::string_view default_exchange = "amq.default";  // what RabbitMQ calls the one without a name

// What the broker names, up to the text's end. RabbitMQ cuts a text at what a short string holds.
struct Named {
    Named(std::string_view text, std::string_view mark) {
        constexpr std::string_view dots = "...";
        const std::size_t at = text.find(mark);
        if (at == text.npos) return;
        rest = text.substr(at + mark.size());
        cut = text.size() == short_string_max && rest.ends_with(dots);
        if (cut) rest.remove_suffix(dots.size());
    }
    bool is(std::string_view name) const { return !rest.empty() && rest.starts_with(name); }
    bool may_be(std::string_view name) const { return cut && !rest.empty() && name.starts_with(rest); }

    std::string_view rest;
    bool cut = false;
};

// The size that the broker names: "PRECONDITION_FAILED - message size 2000 is larger than ...".
std::optional<std::size_t> message_size_in(std::string_view text) {
    constexpr std::string_view mark = "message size ";
    const std::size_t start = text.find(mark);
    if (start == text.npos) return {};
    std::size_t size = 0;
    const char* first = text.data() + start + mark.size();
    if (std::from_chars(first, text.data() + text.size(), size).ec != std::errc{}) return {};
    return size;
}

}  // namespace

// The oldest open ticket whose names stand in the broker's words: publishes are worked on in order. Of words that were
// cut, only if no other name fits them as well. A name may hold quotes, so that it is looked for rather than read.
std::uint64_t Lane::named_tag(std::string_view text, bool topic) const {
    const Named named(text, topic ? topic_mark : exchange_mark);
    const auto name_of = [&](const Address& address) {
        std::string name(address.exchange.empty() ? default_exchange : address.exchange);
        if (topic) name = std::string(address.routing_key) + "' in " + std::string(exchange_mark) + name;
        return name + "'";
    };
    const auto tag = oldest([&](const Ticket& ticket, std::uint64_t) { return named.is(name_of(ticket.address)); });
    if (tag != 0 || !named.cut) return tag;
    std::string first;
    std::uint64_t found = 0;
    const auto another = oldest([&](const Ticket& ticket, std::uint64_t its) {
        const std::string name = name_of(ticket.address);
        if (!named.may_be(name)) return false;
        if (found != 0) return name != first;
        first = name;
        found = its;
        return false;
    });
    return another == 0 ? found : 0;
}

// RabbitMQ's words of a topic that a user may not write to: "access to topic 'k' in exchange 'x' in vhost '/' refused
// for user 'u'"; of an exchange: "no exchange 'x' in vhost '/'", "access to exchange 'x' in vhost '/' refused ...".
Lane::Blame Lane::blame(unsigned code, std::string_view text) {
    const auto of = [&](std::uint64_t tag, Remedy remedy) { return tag == 0 ? Blame{} : Blame{&at(tag), remedy}; };
    if (code == AMQP_NOT_FOUND || code == AMQP_ACCESS_REFUSED) {
        const bool topic = text.find(topic_mark) != text.npos;
        const std::uint64_t named = named_tag(text, topic);
        if (named == 0) return of(alone(), Remedy::forbidden);
        const bool its_own = topic || at(named).address.own_exchange;
        return {&at(named), its_own ? Remedy::forbidden : Remedy::fix_settings, !topic};
    }
    if (code == AMQP_PRECONDITION_FAILED || code == AMQP_CONTENT_TOO_LARGE) {
        if (const auto size = message_size_in(text)) {
            const auto tag = oldest([&](const Ticket& ticket, std::uint64_t) { return ticket.payload == *size; });
            if (tag != 0) return of(tag, Remedy::park);
        }
        return of(alone(), Remedy::park);
    }
    return of(alone(), code == AMQP_RESOURCE_LOCKED ? Remedy::retry : Remedy::unclear);
}

void Lane::closed(unsigned code, std::string_view text, Settlements& out) {
    const Blame found = blame(code, text);
    std::string reason = words(code, text);
    if (found.ticket) {
        const bool names_it = text.find('\'') != text.npos;
        refuse(*found.ticket, found.remedy, found.whole_exchange,
               names_it ? reason : reason + ": " + shown(found.ticket->address), out);
    } else {
        one_by_one_ = open_;  // the one that fails alone is the one
    }
    lost(reason, out);
}

}  // namespace eventbus::broker::amqp
