// What a driver that only looks asks a Redis server; see redis_inquiry.hpp.
// Who calls it: the Redis driver.
#include "broker/redis/redis_inquiry.hpp"

#include "broker/redis/commands.hpp"

namespace eventbus::broker::redis {

namespace {

constexpr std::size_t longest_word = 100;

// Of INFO's lines, "name:value".
std::string line_of(std::string_view info, std::string_view name) {
    const std::string mark = '\n' + std::string(name) + ':';
    const auto at = info.find(mark);
    if (at == std::string_view::npos) return {};
    const auto value = info.substr(at + mark.size());
    return std::string(value.substr(0, std::min(value.find_first_of("\r\n"), longest_word)));
}

// What the server does not let us ask, as a user of few rights, an old one, or a proxy.
bool is_not_told(std::string_view words) {
    return words.starts_with("NOPERM") || words.starts_with("ERR");
}

Finding unknown(const char* step, std::string detail) {
    return {step, Finding::Answer::unknown, std::move(detail), {}};
}

}  // namespace

std::string_view Inquiry::command() const {
    return is_channel() ? "PUBLISH" : target_.addressing.kind == "list" ? "RPUSH" : "XADD";
}

std::string Inquiry::named() const {
    return (is_channel() ? "channel" : target_.addressing.kind) + " '" + target_.name + "'";
}

// ACL DRYRUN is of Redis 7.0.
void Inquiry::ask(std::string& outbox) {
    for (const char* section : {"server", "replication", "memory"}) write_command(outbox, {"INFO", section});
    asked_ = {Question::server, Question::replication, Question::memory};
    const std::string& name = target_.name;
    if (name.empty() || target_.addressing.varies) return;
    if (is_channel()) {
        write_command(outbox, {"PUBSUB", "NUMSUB", name});
        asked_.push_back(Question::subscribers);
        write_command(outbox, {"ACL", "DRYRUN", user_, command(), name, "x"});
    } else {
        write_command(outbox, {"TYPE", name});
        asked_.push_back(Question::type);
        if (command() == "XADD")
            write_command(outbox, {"ACL", "DRYRUN", user_, "XADD", name, "*", "x", "x"});
        else
            write_command(outbox, {"ACL", "DRYRUN", user_, "RPUSH", name, "x"});
    }
    asked_.push_back(Question::right);
}

bool Inquiry::take(const Reply& reply) {
    if (asked_.empty()) return false;
    const Question question = asked_.front();
    asked_.pop_front();
    switch (question) {
        case Question::type:
            destination_ = of_type(reply);
            break;
        case Question::subscribers:
            destination_ = of_subscribers(reply);
            break;
        case Question::right:
            permission_ = of_right(reply);
            break;
        default:
            take_info(question, reply);
    }
    return true;
}

void Inquiry::take_info(Question question, const Reply& reply) {
    if (reply.kind == Reply::Kind::error) {
        refused_ = shown_words(reply.words);
        return;
    }
    const std::string_view info = reply.words;
    if (question == Question::server) {
        const std::string version = line_of(info, "redis_version");
        product_ = version.empty() ? "a server that does not tell which" : "Redis " + version;
        if (const std::string valkey = line_of(info, "valkey_version"); !valkey.empty()) product_ = "Valkey " + valkey;
        const std::string mode = line_of(info, "redis_mode");
        is_cluster_ = mode == "cluster";
        if (!mode.empty()) more_ += ", " + mode;
    } else if (question == Question::replication) {
        const std::string role = line_of(info, "role");
        is_replica_ = role == "slave" && line_of(info, "slave_read_only") != "0";
        if (!role.empty()) more_ += role == "slave" ? ", a replica" : ", role " + role;
    } else {
        const std::string most = line_of(info, "maxmemory");
        const std::string policy = line_of(info, "maxmemory_policy");
        if (most.empty()) return;
        evicts_ = most != "0" && policy != "noeviction";
        more_ += most == "0" ? ", no limit of memory" : ", at most " + most + " bytes of memory, policy " + policy;
    }
}

Finding Inquiry::of_type(const Reply& reply) const {
    if (reply.kind == Reply::Kind::error) {
        const std::string words = shown_words(reply.words);
        if (is_not_told(reply.words))
            return unknown("destination", "the server does not tell what " + named() + " is: " + words);
        return {"destination", Finding::Answer::no, words, {}};
    }
    if (reply.kind != Reply::Kind::status)
        return unknown("destination", "the server answered TYPE with " + std::string(shown_kind(reply)));
    if (reply.words == "none")
        return {"destination", Finding::Answer::yes, named() + " is not there yet, the first message makes it", {}};
    if (reply.words == target_.addressing.kind) return {"destination", Finding::Answer::yes, named() + " is there", {}};
    return {"destination", Finding::Answer::no,
            "the key '" + target_.name + "' holds something of the type " + reply.words.substr(0, longest_word) +
                ", and takes nothing that is sent to a " + target_.addressing.kind + " (WRONGTYPE)",
            "Name another key with eventbus.alter_route, or rename that one. Until then each event becomes a dead "
            "letter."};
}

Finding Inquiry::of_subscribers(const Reply& reply) const {
    if (reply.kind == Reply::Kind::error || reply.number < 0)
        return unknown("destination", "the server does not tell who subscribes to " + named() +
                                          (reply.kind == Reply::Kind::error ? ": " + shown_words(reply.words) : ""));
    return {"destination", Finding::Answer::yes,
            named() + " needs not be made; subscribers by its name now: " + std::to_string(reply.number) +
                " (by patterns: not counted)",
            reply.number == 0 ? "Redis keeps no message of a channel: what nobody subscribes to is gone." : ""};
}

Finding Inquiry::of_right(const Reply& reply) const {
    const std::string who = "user '" + user_ + "'";
    if (reply.kind == Reply::Kind::error)
        return unknown("permission", "the server does not tell before a message is sent whether " + who + " may " +
                                         std::string(command()) + " to it: " + shown_words(reply.words));
    if (reply.words.empty())
        return unknown("permission", "the server answered ACL DRYRUN with " + std::string(shown_kind(reply)));
    if (reply.words == "OK")
        return {"permission", Finding::Answer::yes, who + " may " + std::string(command()) + " to it", {}};
    return {"permission", Finding::Answer::no, reply.words.substr(0, 3 * longest_word),
            "Permit it on the server (ACL SETUSER). Until then its events wait."};
}

void Inquiry::tell(Look& look) const {
    if (!asked_.empty() && asked_.front() <= Question::memory) return;
    Finding broker{"broker", Finding::Answer::yes, product_ + more_, {}};
    if (product_.empty()) broker = unknown("broker", "the server does not tell what it is: " + refused_ + more_);
    if (is_replica_) {
        broker.answer = Finding::Answer::no;
        broker.hint = "A replica takes no messages but on channels: name its primary in the broker's URL.";
    } else if (is_cluster_) {
        broker.hint = "Clusters are not followed: keys of other nodes are refused.";
    } else if (evicts_) {
        broker.hint = "By that policy the server drops keys when its memory is full, streams and lists among them.";
    }
    look.findings.push_back(std::move(broker));
    if (!done()) look.step = asked_.front() == Question::right ? "permission" : "destination";
    if (destination_) look.findings.push_back(*destination_);
    if (permission_) look.findings.push_back(*permission_);
}

}  // namespace eventbus::broker::redis
