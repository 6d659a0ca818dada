// What it is: the Redis driver; see redis_driver.hpp.
// Who calls it: redis_module.cpp makes it, delivery drives it.
// Never: sends anything while nothing is offered, or shows a password.
#include "broker/redis/redis_driver.hpp"

#include <algorithm>
#include <utility>

#include "broker/redis/commands.hpp"
#include "broker/stream/other_protocols.hpp"

namespace eventbus::broker::redis {

namespace {

constexpr std::size_t default_window = 10'000;
constexpr std::size_t most_open_bytes = 1024 * 1024;
// Ours would have the sender wait for it (stream_history.hpp).
constexpr std::string_view name_to_look{"pg_eventbus-test"};
constexpr std::chrono::milliseconds shortest_timeout{500};  // Redis' is a second at least

std::int64_t wall_clock_us() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

// Each command has its own good answer: the entry's id, the list's new length, the number of receivers.
bool is_good(OpenCommands::What asked, const Reply& reply) {
    if (asked != OpenCommands::What::stream)
        return reply.kind == Reply::Kind::integer && reply.number >= (asked == OpenCommands::What::list ? 1 : 0);
    return (reply.kind == Reply::Kind::string || reply.kind == Reply::Kind::status) && is_entry_id(reply.words);
}

std::string odd_answer(OpenCommands::What asked, const Reply& reply) {
    const std::string_view command = asked == OpenCommands::What::stream ? "XADD"
                                     : asked == OpenCommands::What::list ? "RPUSH"
                                                                         : "PUBLISH";
    const std::string_view right = asked == OpenCommands::What::stream ? "the id of an entry"
                                   : asked == OpenCommands::What::list ? "the length of the list"
                                                                       : "the number of receivers";
    std::string text("the server answered ");
    text.append(command).append(" with ").append(shown_kind(reply));
    return text.append(", not with ").append(right);
}

std::string seconds_text(std::chrono::milliseconds time) {
    const auto ms = time.count();
    std::string text = std::to_string(ms / 1000);
    if (ms % 1000 != 0) {
        text += "." + std::to_string(1000 + ms % 1000).substr(1);
        text.erase(text.find_last_not_of('0') + 1);
    }
    return text + " s";
}

}  // namespace

void OpenCommands::grow() {
    std::vector<Open> larger(slots_.empty() ? 1024 : slots_.size() * 2);
    for (std::size_t i = 0; i < count_; ++i) larger[i] = slots_[(first_ + i) & (slots_.size() - 1)];
    slots_.swap(larger);
    first_ = 0;
}

RedisDriver::RedisDriver(const BrokerSettings& settings, unsigned attempt, TimePoint now)
    : host_(settings.url.hosts[attempt % settings.url.hosts.size()]),
      scheme_(settings.url.scheme),
      has_other_hosts_(settings.url.hosts.size() > 1),
      stream_(host_, tls_settings(settings, settings.url.scheme == "rediss")),
      replies_(settings.source),
      source_(settings.source),
      window_(settings.options.window ? settings.options.window : default_window),
      heartbeat_(settings.options.heartbeat_s),
      connect_timeout_(settings.login_ms(settings.options.connect_timeout_ms)),
      connect_deadline_(now + connect_timeout_),
      now_(now),
      used_at_(now),
      quiet_since_(now),
      past_(settings, wall_clock_us(), now) {
    stream_.drop_unsent_at_close();
    if (settings.look_ms > 0) {
        inquiry_.emplace(settings);
        who_ = settings.url.has_user       ? "as user \"" + settings.url.user + '"'
               : settings.password.empty() ? "without a password"
                                           : "by the password alone";
        who_ += ", database " + std::to_string(database_number(settings.url));
    }
    greet(settings);
}

// The login waits in the outbox for the connection.
void RedisDriver::greet(const BrokerSettings& settings) {
    std::string& outbox = stream_.outbox();
    if (settings.url.has_user) {
        write_command(outbox, {"AUTH", settings.url.user, settings.password});
        login_.push_back(Step::auth);
    } else if (!settings.password.empty()) {
        write_command(outbox, {"AUTH", settings.password});
        login_.push_back(Step::auth);
    }
    if (const unsigned database = database_number(settings.url); database != 0) {
        write_command(outbox, {"SELECT", std::to_string(database)});
        login_.push_back(Step::select);
    }
    // Logins are answered while the server loads its data or waits for its primary. PING is not.
    write_command(outbox, {"PING"});
    login_.push_back(Step::ready);
    if (has_other_hosts_) {
        write_command(outbox, {"HELLO"});
        login_.push_back(Step::role);
    }
    write_command(outbox, {"CLIENT", "SETNAME", inquiry_ ? name_to_look : past_.client_name()});
    login_.push_back(Step::set_name);
}

Interest RedisDriver::interest() const {
    return stream_.interest();
}

TimePoint RedisDriver::wake_at() const {
    if (link_.state == LinkState::connecting) return connect_deadline_;
    if (!settled_.empty()) return now_;
    TimePoint wake = TimePoint::max();
    if (link_.state != LinkState::up) return wake;
    if (watching_ && heartbeat_.count() > 0) wake = quiet_since_ + heartbeat_;
    if (past_.fence == StreamHistory::Fence::waiting) wake = std::min(wake, past_.ask_again_at);
    return wake;
}

Link RedisDriver::drive(Ready ready, TimePoint now) {
    if (link_.state == LinkState::down) return link_;
    now_ = now;
    past_.clock_is(wall_clock_us(), now);
    const bool moved = move_bytes(ready);
    const std::size_t unsent = stream_.unsent();
    read_replies();
    if (past_.fence == StreamHistory::Fence::waiting && now >= past_.ask_again_at) ask_fence();
    if (stream_.unsent() > unsent) stream_.flush();
    if (stream_.state() == Stream::State::closed) {
        read_replies();
        closed();
    }
    watch(moved, now);
    return link_;
}

void RedisDriver::closed() {
    if (stream_.is_settings_error()) return go_down(Remedy::fix_settings, stream_.error());
    // Redis answers PING and the rest of the login at once.
    if (link_.state == LinkState::connecting && login_answered_ > 0 && login_answered_ < login_.size() &&
        login_[login_answered_] > Step::ready)
        return go_down(Remedy::fix_settings,
                       stream_.error() + " at " + (login_[login_answered_] == Step::role ? "HELLO" : "CLIENT SETNAME") +
                           "; a proxy that knows a part of Redis' commands only (twemproxy) is not supported");
    const bool idle = link_.state == LinkState::up && open_.empty() && held_.empty() && stream_.unsent() == 0 &&
                      stream_.error() == Stream::closed_by_server && now_ - used_at_ >= shortest_timeout;
    const bool unheard = link_.state == LinkState::connecting && login_answered_ == 0 && stream_.left();
    go_down(Remedy::retry, stream_.error() + (unheard ? if_it_wants_tls(scheme_) : ""));
    link_.idle = idle;
}

// Whether the server gave anything, or took it: what a socket takes that was not full stays in the kernel's hands.
bool RedisDriver::move_bytes(Ready ready) {
    const std::size_t unsent = stream_.unsent();
    stream_.drive(ready);
    return (socket_was_full_ && stream_.unsent() < unsent) || !stream_.inbox().empty();
}

void RedisDriver::read_replies() {
    const std::string_view bytes = stream_.inbox();
    const bool first = link_.state == LinkState::connecting && login_answered_ == 0;
    const std::string another = first ? other_protocol(bytes, scheme_) : std::string();
    if (!another.empty()) return go_down(Remedy::retry, another);
    if (first && may_be_other_protocol(bytes) && !bytes.starts_with('-')) return;  // the rest of it is still to come
    const bool understood = replies_.read(bytes, [this](const Reply& reply) { take(reply); });
    stream_.consume(bytes.size());
    if (!understood) go_down(Remedy::retry, "the server sent something that is not Redis protocol");
}

void RedisDriver::take(const Reply& reply) {
    used_at_ = now_;
    if (link_.state == LinkState::connecting) {
        take_login(reply);
    } else if (link_.state == LinkState::up && inquiry_) {
        if (!inquiry_->take(reply)) go_down(Remedy::retry, "the server sent a reply to nothing");
    } else if (link_.state == LinkState::up) {
        take_answer(reply);
    }
}

void RedisDriver::take_login(const Reply& reply) {
    const Step step = login_[login_answered_++];
    if (reply.kind == Reply::Kind::error) login_refused(step, reply.words);
    if (step == Step::role && reply.words == "replica")
        go_down(Remedy::retry, host_.shown() + " is a replica, which takes no messages");
    if (link_.state != LinkState::connecting || login_answered_ < login_.size()) return;
    link_.state = LinkState::up;
    was_up_ = true;
    if (inquiry_) inquiry_->ask(stream_.outbox());
}

void RedisDriver::login_refused(Step step, const std::string& words) {
    const bool optional = step != Step::auth && step != Step::select;
    const bool refused = optional ? needs_login(words) : refuses_login(words);
    // A server that refuses only what is optional (an ACL without CLIENT, a proxy) still takes messages. So does one
    // that cannot write to its disk, on channels.
    if (optional && !refused && (refuses_login(words) || words.starts_with("MISCONF"))) return;
    go_down(refused ? Remedy::fix_settings : Remedy::retry, shown_words(words));
}

void RedisDriver::take_answer(const Reply& reply) {
    if (open_.empty()) return go_down(Remedy::retry, "the server sent a reply to nothing");
    const OpenCommands::Open asked = open_.front();
    if (!asked.is_message()) {
        open_.pop();
        return take_past(asked, reply);
    }
    if (reply.kind == Reply::Kind::error) {
        if (has_other_hosts_ && reply.words.starts_with("READONLY"))
            return go_down(Remedy::retry, shown_words(reply.words));
        settled_.push_back({asked.ticket, Verdict::refused, remedy_of(reply.words), shown_words(reply.words)});
    } else if (is_good(asked.what, reply)) {
        settled_.push_back({asked.ticket, Verdict::delivered, Remedy::none, {}});
    } else {
        settled_.push_back({asked.ticket, Verdict::refused, Remedy::unclear, odd_answer(asked.what, reply)});
    }
    open_.pop();
    --open_messages_;
    open_bytes_ -= asked.bytes;
}

void RedisDriver::take_past(const OpenCommands::Open& asked, const Reply& reply) {
    replies_.expect_long(open_.size() > open_messages_);
    if (reply.kind == Reply::Kind::error && remedy_of(reply.words) == Remedy::retry)
        return go_down(Remedy::retry, shown_words(reply.words));
    if (asked.what == OpenCommands::What::tail) {
        if (reply.kind == Reply::Kind::entries) {
            asked.tail->take(reply.entries);
        } else {
            asked.tail->give_up();
        }
        if (asked.tail->ask_on(stream_.outbox())) await(OpenCommands::What::tail, asked.tail);
    } else if (asked.what == OpenCommands::What::time) {
        if (reply.kind == Reply::Kind::entries && reply.number > 0)
            past_.take_time(reply.number, wall_clock_us(), now_);
    } else {
        past_.take_fence(reply.kind == Reply::Kind::string ? reply.words : std::string_view(), now_);
        if (past_.fence != StreamHistory::Fence::clear) return;
        for (const Outgoing& held : held_) {
            if (!is_past_known(held)) ask_past(held);
        }
    }
    release_held();
}

bool RedisDriver::is_past_known(const Outgoing& outgoing) {
    return !past_.concerns(outgoing) || (past_.fence == StreamHistory::Fence::clear &&
                                         past_.tail(outgoing.name).reaches(past_.since(*outgoing.event)));
}

void RedisDriver::ask_past(const Outgoing& outgoing) {
    if (past_.fence == StreamHistory::Fence::unasked) ask_fence();
    if (past_.fence != StreamHistory::Fence::clear) return;
    Tail& tail = past_.tail(outgoing.name);
    if (tail.ask(stream_.outbox(), past_.since(*outgoing.event))) await(OpenCommands::What::tail, &tail);
}

void RedisDriver::ask_fence() {
    if (past_.ask_fence(stream_.outbox())) await(OpenCommands::What::time, nullptr);
    await(OpenCommands::What::fence, nullptr);
}

void RedisDriver::await(OpenCommands::What what, Tail* tail) {
    open_.push({0, 0, what, tail});
    replies_.expect_long(true);
}

// In the order in which they were offered, whatever their past.
void RedisDriver::release_held() {
    while (!held_.empty()) {
        const Outgoing first = held_.front();
        if (!is_past_known(first)) return ask_past(first);
        held_.pop_front();
        held_bytes_ -= command_room(first, source_);
        deliver(first);
    }
}

// Deadlines: for the whole of connecting, then for a server that owes us replies and is silent.
void RedisDriver::watch(bool moved, TimePoint now) {
    if (link_.state == LinkState::connecting && now >= connect_deadline_) {
        const bool connected = stream_.state() == Stream::State::open;
        go_down(Remedy::retry, (connected ? "no answer to the login" : stream_.missing()) + " within " +
                                   seconds_text(connect_timeout_));
    }
    if (link_.state != LinkState::up) return;
    if (moved || !watching_) quiet_since_ = now;
    watching_ = !open_.empty();
    socket_was_full_ = stream_.unsent() > 0;
    if (watching_ && heartbeat_.count() > 0 && now >= quiet_since_ + heartbeat_)
        go_down(Remedy::retry, "no reply for " + seconds_text(heartbeat_));
}

void RedisDriver::go_down(Remedy remedy, std::string reason) {
    if (link_.state == LinkState::down) return;
    link_ = {LinkState::down, remedy, std::move(reason)};
    for (; !open_.empty(); open_.pop()) {
        if (!open_.front().is_message()) continue;
        settled_.push_back({open_.front().ticket, Verdict::unknown, Remedy::retry, link_.reason});
    }
    for (const Outgoing& held : held_) settled_.push_back({held.ticket, Verdict::unknown, Remedy::retry, link_.reason});
    held_.clear();
    stream_.close(link_.reason);
}

bool RedisDriver::offer(const Outgoing& outgoing) {
    if (link_.state != LinkState::up || inquiry_ || open_messages_ + held_.size() >= window_) return false;
    const std::size_t room = command_room(outgoing, source_);
    const bool first = open_messages_ == 0 && held_.empty();
    if (!first && open_bytes_ + held_bytes_ + room > most_open_bytes) return false;
    const bool known = is_past_known(outgoing);
    if (known && held_.empty()) {
        deliver(outgoing);
    } else {
        held_.push_back(outgoing);
        held_bytes_ += room;
        if (!known) ask_past(outgoing);
    }
    return true;
}

void RedisDriver::deliver(const Outgoing& outgoing) {
    if (past_.concerns(outgoing) && past_.tail(outgoing.name).take_copy(*outgoing.event)) {
        settled_.push_back({outgoing.ticket, Verdict::delivered, Remedy::none, {}});
        return;
    }
    std::string& outbox = stream_.outbox();
    const std::size_t before = outbox.size();
    const std::string_view kind = outgoing.addressing->kind;
    auto what = OpenCommands::What::channel;
    if (kind == "stream") {
        write_stream_add(outbox, outgoing, source_);
        what = OpenCommands::What::stream;
    } else if (kind == "list") {
        write_push(outbox, outgoing);
        what = OpenCommands::What::list;
    } else {
        write_publish(outbox, outgoing);
    }
    const std::size_t bytes = outbox.size() - before;
    open_.push({outgoing.ticket, bytes, what, nullptr});
    ++open_messages_;
    open_bytes_ += bytes;
}

void RedisDriver::look_at(const Target& target) {
    if (inquiry_) inquiry_->look_at(target);
}

Look RedisDriver::look() const {
    Look look;
    if (!inquiry_ || !stream_.look(look)) return look;
    look.step = "login";
    if (!was_up_) return look;
    look.found("login", who_);
    look.step = "broker";
    inquiry_->tell(look);
    look.done = inquiry_->done() && link_.state == LinkState::up;
    return look;
}

std::size_t RedisDriver::settle(std::span<Settlement> out) {
    return drain(settled_, settled_taken_, out);
}

}  // namespace eventbus::broker::redis
