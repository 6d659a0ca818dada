// What it is: what streams already hold of ours; see stream_history.hpp.
// Who calls it: the Redis driver.
// Never: reads a stream further back than events can be uncertain.
#include "broker/redis/stream_history.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "broker/redis/commands.hpp"

namespace eventbus::broker::redis {

namespace {

// While one of them is set, or where the server does not tell its own.
constexpr std::int64_t clocks_differ_ms = 60'000;
constexpr std::int64_t clock_steps_us = 1'000'000;

// After a lost connection, what had been sent and not answered is uncertain. After a crash, so is what was sent since
// the cursor last reached the disk, up to 0.6 s (three times wal_writer_delay): 300 000 events of a fast drain.
constexpr std::size_t most_of_ours = 500'000;
constexpr std::size_t most_bytes = 256 * 1024 * 1024;
constexpr std::size_t page_bytes = 512 * 1024;
constexpr std::size_t most_in_page = 2000;
constexpr std::size_t most_tails = 10'000;

constexpr auto fence_pause = std::chrono::milliseconds(20);
constexpr auto fence_patience = std::chrono::seconds(3);

// Ids begin again in a restored database and, from the WAL, on a promoted standby's timeline.
bool is_copy(const EntryMark& mark, const Event& event) {
    return event.is_timeless ? mark.payload == payload_mark(event.payload) : mark.published_at == event.published_at;
}

std::int64_t steady_us(TimePoint at) {
    return std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
}

std::uint64_t fingerprint(std::string_view text, std::uint64_t state) {
    for (const char c : text) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return state;
}

}  // namespace

std::int64_t Tail::from_ms(std::int64_t published_us) {
    return std::max<std::int64_t>(0, published_us / 1000 - clocks_differ_ms);
}

bool Tail::ask(std::string& outbox, std::int64_t published_us) {
    wanted_ms_ = std::min(wanted_ms_, from_ms(published_us));
    return ask_on(outbox);
}

bool Tail::ask_on(std::string& outbox) {
    if (waiting_ || known_ms_ <= wanted_ms_) return false;
    waiting_ = true;
    asked_ms_ = wanted_ms_;
    write_command(outbox, {"XREVRANGE", name_, before_, std::to_string(asked_ms_), "COUNT", std::to_string(page_)});
    return true;
}

void Tail::take(const std::vector<StreamEntry>& page) {
    waiting_ = false;
    std::size_t bytes = 0;
    for (const StreamEntry& entry : page) {
        bytes += entry.bytes;
        if (!entry.ours) continue;
        ++ours_;
        copies_.emplace(entry.id, entry.mark);
    }
    bytes_ += bytes;
    if (page.size() < page_) {
        known_ms_ = asked_ms_;
        before_ = std::to_string(std::max<std::int64_t>(0, asked_ms_ - 1));  // nothing is counted twice
    } else if (const StreamEntry& last = page.back(); ours_ >= most_of_ours || bytes_ >= most_bytes || last.ms <= 0) {
        known_ms_ = 0;
    } else {
        known_ms_ = last.ms + 1;
        // An id without its second part is the last one of that millisecond.
        before_ = last.sequence > 0 ? std::to_string(last.ms) + "-" + std::to_string(last.sequence - 1)
                                    : std::to_string(last.ms - 1);
        page_ = std::clamp<std::size_t>(page_bytes / std::max<std::size_t>(bytes / page.size(), 1), 1,
                                        std::min(page_ * 8, most_in_page));
    }
}

void Tail::give_up() {
    waiting_ = false;
    known_ms_ = 0;
}

bool Tail::take_copy(const Event& event) {
    if (copies_.empty()) return false;
    const auto [first, last] = copies_.equal_range(event.id);
    const auto found = std::find_if(first, last, [&](const auto& copy) { return is_copy(copy.second, event); });
    if (found == last) return false;
    copies_.erase(found);
    return true;
}

StreamHistory::StreamHistory(const BrokerSettings& settings, std::int64_t started_us, TimePoint started)
    : started_(started),
      clock_us_(started_us - steady_us(started)),
      started_us_(started_us + clock_steps_us),
      servers_started_us_(started_us_) {
    std::uint64_t who = fingerprint(settings.source, 0xcbf29ce484222325);
    who = fingerprint(settings.name, fingerprint(std::string_view("\0", 1), who));
    std::array<char, 16> hex;
    const char* end = std::to_chars(hex.data(), hex.data() + hex.size(), who, 16).ptr;
    client_name_ = "pg_eventbus:" + std::string(hex.data(), static_cast<std::size_t>(end - hex.data()));
}

void StreamHistory::clock_is(std::int64_t now_us, TimePoint now) {
    clock_us_ = std::max(clock_us_, now_us - steady_us(now));
    started_us_ = steady_us(started_) + clock_us_ + clock_steps_us;
    future_us_ = now_us + clock_steps_us;
}

void StreamHistory::take_time(std::int64_t servers_us, std::int64_t now_us, TimePoint now) {
    ahead_us_ = servers_us - now_us;
    servers_started_us_ = servers_us - (steady_us(now) - steady_us(started_)) + clock_steps_us;
}

Tail& StreamHistory::tail(std::string_view stream) {
    const auto found = tails_.find(stream);
    if (found != tails_.end()) return found->second;
    if (tails_.size() >= most_tails) forget_some();
    return tails_.try_emplace(std::string(stream), stream).first->second;
}

// A tail that is needed again is read again.
void StreamHistory::forget_some() {
    for (auto at = tails_.begin(); at != tails_.end();) at = at->second.waiting() ? std::next(at) : tails_.erase(at);
}

bool StreamHistory::ask_fence(std::string& outbox) {
    const bool first = fence == Fence::unasked;
    fence = Fence::asked;
    if (first) write_command(outbox, {"TIME"});
    write_command(outbox, {"CLIENT", "LIST"});
    return first;
}

void StreamHistory::take_fence(std::string_view client_list, TimePoint now) {
    if (fence_deadline_ == TimePoint::max()) fence_deadline_ = now + fence_patience;
    const std::string ours = " name=" + client_name_ + " ";
    const auto first = client_list.find(ours);
    const bool alone = first == std::string_view::npos || client_list.find(ours, first + 1) == std::string_view::npos;
    fence = alone || now >= fence_deadline_ ? Fence::clear : Fence::waiting;
    ask_again_at = now + fence_pause;
}

}  // namespace eventbus::broker::redis
