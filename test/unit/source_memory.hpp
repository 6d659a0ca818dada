// What it is: a source of events made of memory: a list of events, a stream a route, and its rows on a disk that a crash leaves.
// Who calls it: the tests of the source room.
// Never: knows anything that the log and the WAL could not know.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "source/parked.hpp"
#include "source/source.hpp"
#include "source/stream.hpp"

namespace eventbus::test {

struct Record {
    std::int64_t id;
    std::string key;
};

// What is left when a sender dies.
struct Disk {
    struct Key {
        delivery::ParkedKey what;
        std::size_t place = 0;
    };
    struct Row {
        std::size_t place = 0;
        std::map<delivery::ParkedKeyId, Key> keys;
    };
    std::vector<Record> records;
    std::map<std::int32_t, Row> rows;
};

class MemorySource final : public source::Source {
 public:
    MemorySource(Disk& disk, delivery::Dispatcher& dispatcher)
        : Source("memory"), disk_(disk), dispatcher_(dispatcher) {}

    std::size_t chunks = 0;  // that the dispatcher has
    std::size_t parked = 0;  // keys, ever
    std::size_t ended = 0;

    struct Key : source::ParkedPart {
        source::Stream stream{};
        std::size_t read = 0;
        std::size_t known = 0;   // what there was when it was loaded: it may not end before that
        std::size_t behind = 0;  // it goes when the route's row has passed this
    };
    struct Feed : source::RouteFeed {
        source::Stream stream{};
        std::size_t read = 0;
        std::vector<std::unique_ptr<Key>> keys;
    };

    bool read() override {
        bool more = false;
        for (auto& [id, feed] : feeds_) {
            if (dispatcher_.hungry(feed.stream.id) && feed.read < disk_.records.size())
                more = hand_over(feed.stream, feed.read, disk_.records.size(), 7) || more;
            for (auto& key : feed.keys)
                if (!key->ended && key->stream.is_empty() && key->read < feed.read)
                    more = hand_over(key->stream, key->read, feed.read, 5) || more;
        }
        return more;
    }
    bool arrange() override {
        bool more = false;
        for (auto& [id, feed] : feeds_) {
            for (auto& key : feed.keys) {
                if (key->ended || !key->stream.is_empty()) continue;
                more = more || key->read < feed.read;
                if (key->read < feed.read || feed.read < key->known) continue;
                key->end(dispatcher_);
                key->behind = feed.read;
                ++ended;
            }
        }
        return more;
    }
    bool comes_fast() override { return false; }
    bool has_more() override {
        return std::any_of(feeds_.begin(), feeds_.end(),
                           [&](const auto& feed) { return feed.second.read < disk_.records.size(); });
    }
    bool take_back(const delivery::Report::Finished& finished) override {
        for (auto& [id, feed] : feeds_) {
            if (take_back(feed.stream, finished)) return true;
            for (auto& key : feed.keys)
                if (take_back(key->stream, finished)) return true;
        }
        return false;
    }

    void load_place(source::Route* route) override {
        Feed& feed = feeds_[route->id];
        feed.stream.begin(++last_stream_);
        feed.read = disk_.rows[route->id].place;
        route->feed = &feed;
    }
    delivery::StreamId stream_of(const source::Route* route) override { return feed_of(route).stream.id; }
    void load_parked_keys(source::Route* route) override {
        for (const auto& [number, saved] : disk_.rows[route->id].keys) {
            Key& key = add_key(route, number, saved.place);
            key.known = disk_.records.size();
            key.resume(dispatcher_, key.stream.id, saved.what);
        }
    }
    void apply(source::Route*, bool) override {}
    void keep_for_unusable(std::int32_t, const char*) override {}
    void remove(source::Route*) override {}
    bool park_key(source::Route* route) override {
        Feed& feed = feed_of(route);
        const auto number = feed.keys.empty() ? 1 : feed.keys.back()->number + 1;
        Key& key = add_key(route, number, settled(feed.stream, dispatcher_.status(key_of(route)).settled, feed.read));
        key.begin(dispatcher_, key.stream.id);
        ++parked;
        return true;
    }

    void save_place(source::Route* route, const delivery::Position& at) override {
        Feed& feed = feed_of(route);
        disk_.rows[route->id].place = settled(feed.stream, at, feed.read);
    }
    void save_parked_keys(source::Route* route) override {
        auto& row = disk_.rows[route->id];
        for (auto& key : feed_of(route).keys) {
            if (key->ended && row.place >= key->behind) {
                row.keys.erase(key->number);
                continue;
            }
            Disk::Key& saved = row.keys[key->number];
            saved.what = *key->takes;
            saved.what.tried.clear();
            const auto ahead = dispatcher_.settled_ahead(key->route, key->number);
            saved.what.settled.assign(ahead.begin(), ahead.end());
            saved.place = settled(key->stream, key->status(dispatcher_).settled, key->read);
        }
    }
    void saved(source::Route* route) override {
        std::erase_if(feed_of(route).keys, [&](const auto& key) {
            const bool gone = key->ended && disk_.rows[route->id].keys.count(key->number) == 0;
            if (gone) dispatcher_.remove_parked_key(key->route, key->number);
            return gone;
        });
    }
    counters::Answer answer(const source::Route*, const counters::Wanted&) override { return {}; }

    // A sender that dies takes what it has in memory with it.
    ~MemorySource() {
        for (auto& [id, feed] : feeds_) {
            free_all(feed.stream);
            for (auto& key : feed.keys) free_all(key->stream);
        }
    }

 private:
    struct Held : source::Chunk {
        std::vector<Record> records;  // copies: whoever looks at a chunk that was freed is seen by ASan
        std::vector<Event> made;
        std::size_t from = 0;
        std::size_t* count_of = nullptr;
    };

    static delivery::RouteId key_of(const source::Route* route) { return static_cast<delivery::RouteId>(route->id); }
    static Feed& feed_of(const source::Route* route) { return *static_cast<Feed*>(route->feed); }
    static void free_all(source::Stream& stream) {
        while (stream.first != nullptr) stream.take_back(stream.first->id);
    }
    static bool take_back(source::Stream& stream, const delivery::Report::Finished& finished) {
        return stream.id == finished.stream && stream.take_back(finished.chunk) > 0;
    }
    static std::size_t settled(const source::Stream& stream, const delivery::Position& at, std::size_t read) {
        const source::Chunk* chunk = nullptr;
        std::uint32_t index = 0;
        return stream.first_unsettled(at, &chunk, &index) ? static_cast<const Held*>(chunk)->from + index : read;
    }
    Key& add_key(const source::Route* route, delivery::ParkedKeyId number, std::size_t from) {
        auto& key = feed_of(route).keys.emplace_back(std::make_unique<Key>());
        key->route = key_of(route);
        key->number = number;
        key->stream.begin(++last_stream_);
        key->read = from;
        return *key;
    }
    bool hand_over(source::Stream& stream, std::size_t& read, std::size_t end, std::size_t most) {
        auto* chunk = new Held();
        chunk->from = read;
        read = std::min(end, read + most);
        chunk->records.assign(disk_.records.begin() + static_cast<std::ptrdiff_t>(chunk->from),
                              disk_.records.begin() + static_cast<std::ptrdiff_t>(read));
        for (const Record& record : chunk->records) {
            Event event;
            event.id = EventId::of_log(record.id);
            event.topic = "t";
            event.payload = "{}";
            if (!record.key.empty()) event.key = record.key;
            chunk->made.push_back(event);
        }
        chunk->events = chunk->made.data();
        chunk->count = static_cast<std::uint32_t>(chunk->made.size());
        chunk->bytes = 100 * chunk->made.size();
        chunk->count_of = &chunks;
        chunk->free = [](source::Chunk* of) {
            auto* held = static_cast<Held*>(of);
            --*held->count_of;
            delete held;
        };
        ++chunks;
        stream.append(chunk);
        dispatcher_.lend(stream.id, {chunk->id, chunk->made, 0});
        return read < end;
    }

    Disk& disk_;
    delivery::Dispatcher& dispatcher_;
    std::map<std::int32_t, Feed> feeds_;
    delivery::StreamId last_stream_ = 0;
};

}  // namespace eventbus::test
