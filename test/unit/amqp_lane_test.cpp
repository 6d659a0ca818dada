// What it is: a lane's tickets: whom a closed channel blames, and that everything settles once.
// Who calls it: make -C test/unit amqp.
// Never: opens a socket.
#include "broker/amqp/lane.hpp"

#include <gtest/gtest.h>

#include <map>

namespace eventbus::broker::amqp {
namespace {

class AmqpLane : public testing::Test {
 protected:
    AmqpLane() { open(); }
    void open() {
        lane_.opened(1, now_);
        lane_.opening = false;
    }
    void publish(std::uint64_t ticket, std::size_t payload = 10, std::string_view exchange = "x",
                 std::string_view routing_key = "k", bool own_exchange = false) {
        publish_event(ticket, {0, static_cast<std::int64_t>(ticket)}, payload, {exchange, routing_key, own_exchange});
    }
    void publish_event(std::uint64_t ticket, EventId event, std::size_t payload = 10, Address address = {"x", "k"}) {
        lane_.published(ticket, event, payload, address, now_);
    }
    bool give_back(std::string_view message_id, std::string_view routing_key = "k", unsigned code = 312) {
        return lane_.return_started(code, "NO_ROUTE", "x", routing_key) && lane_.return_header(message_id, 0);
    }
    // A channel that was closed, while others' messages were under way: `culprit` is blamed, they continue as they
    // were.
    void expect_blamed(std::uint64_t culprit, Remedy remedy, unsigned code, const std::string& text) {
        lane_.closed(code, text, out_);
        for (const Settlement& each : out_) {
            if (each.ticket == culprit)
                expect(culprit, Verdict::refused, remedy);
            else
                expect(each.ticket, Verdict::unknown, Remedy::retry);
        }
        EXPECT_EQ(settlement(culprit).verdict, Verdict::refused);
        out_.clear();
        open();
        EXPECT_TRUE(lane_.takes(1000, 1000));
    }
    const Settlement& settlement(std::uint64_t ticket) {
        const Settlement* found = nullptr;
        for (const Settlement& each : out_)
            if (each.ticket == ticket) {
                EXPECT_EQ(found, nullptr) << "ticket " << ticket << " settled twice";
                found = &each;
            }
        static const Settlement none{0, Verdict::unknown, Remedy::none, "not settled"};
        EXPECT_NE(found, nullptr) << "ticket " << ticket << " not settled";
        return found ? *found : none;
    }
    void expect(std::uint64_t ticket, Verdict verdict, Remedy remedy) {
        EXPECT_EQ(settlement(ticket).verdict, verdict) << ticket;
        EXPECT_EQ(settlement(ticket).remedy, remedy) << ticket;
    }

    Lane lane_;
    TimePoint now_{};
    Settlements out_;
};

TEST_F(AmqpLane, TheMissingExchangesEventIsBlamed) {
    publish(1, 10, "here");
    publish(2, 10, "gone");
    publish(3, 10, "gone");
    lane_.closed(404, "NOT_FOUND - no exchange 'gone' in vhost '/'", out_);
    expect(1, Verdict::unknown, Remedy::retry);
    expect(2, Verdict::refused, Remedy::fix_settings);
    expect(3, Verdict::unknown, Remedy::retry);
    EXPECT_EQ(settlement(2).reason, "404 NOT_FOUND - no exchange 'gone' in vhost '/'");
    EXPECT_EQ(out_.size(), 3u);
    EXPECT_EQ(lane_.channel, 0);
    open();
    publish(4);
    EXPECT_TRUE(lane_.takes(1000, 1000)) << "nobody goes one by one for a missing exchange";
}

// RabbitMQ's words for a topic permission.
std::string forbidden_topic(const std::string& key, const std::string& exchange = "x") {
    std::string text = "ACCESS_REFUSED - access to topic '" + key + "' in exchange '" + exchange +
                       "' in vhost '/' refused for user 'u'";
    if (text.size() > 255) text = text.substr(0, 252) + "...";
    return text;
}

TEST_F(AmqpLane, AForbiddenRoutingKeyIsItsMessagesTroubleAlone) {
    publish(1, 10, "x", "good");
    publish(2, 10, "y", "bad");
    publish(3, 10, "x", "bad");
    publish(4, 10, "x", "bad");
    expect_blamed(3, Remedy::forbidden, 403, forbidden_topic("bad"));
    publish(1, 10, "x", "good");
    publish(2, 10, "x", "bad' in exchange 'x");
    publish(3, 10, "x", "bad");
    expect_blamed(2, Remedy::forbidden, 403, forbidden_topic("bad' in exchange 'x"));
    publish(1, 10, "x", "good");
    publish(2, 10, "x", "bad");
    expect_blamed(2, Remedy::forbidden, 403,
                  "ACCESS_REFUSED - write access to topic 'bad' in exchange 'x' in vhost '/' refused for user 'u'");
}

TEST_F(AmqpLane, AForbiddenRoutingKeyIsFoundByWhatFitsTheBrokersWords) {
    const std::string longest(255, 'a');
    const std::string other = std::string(240, 'a') + "b";
    publish(1, 10, "x", "a");
    publish(2, 10, "x", longest);
    publish(3, 10, "x", std::string_view("aab"));
    expect_blamed(2, Remedy::forbidden, 403, forbidden_topic(longest));
    publish(1, 10, "x", "a");
    publish(2, 10, "x", other);
    publish(3, 10, "x", longest);
    lane_.closed(403, forbidden_topic(longest), out_);
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) expect(ticket, Verdict::unknown, Remedy::retry);
    out_.clear();
    open();
    publish(3, 10, "x", longest);
    EXPECT_FALSE(lane_.takes(1000, 1000)) << "one at a time, where the words fit several";
    expect_blamed(3, Remedy::forbidden, 403, forbidden_topic(longest));
}

TEST_F(AmqpLane, AnExchangeThatTheEventNamesIsTheEventsTrouble) {
    publish(1, 10, "shop.a", "k", true);
    publish(2, 10, "shop.b", "k", true);
    expect_blamed(2, Remedy::forbidden, 404, "NOT_FOUND - no exchange 'shop.b' in vhost '/'");
    publish(1, 10, "shop.a", "k", true);
    publish(2, 10, "shop.b", "k", true);
    expect_blamed(2, Remedy::forbidden, 403, "ACCESS_REFUSED - access to exchange 'shop.b' in vhost '/' refused");
    publish(1, 10, "", "queue");
    expect_blamed(1, Remedy::fix_settings, 403,
                  "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused");
}

TEST_F(AmqpLane, WithoutANameTheOneThatFailsAloneIsBlamed) {
    publish(1);
    publish(2);
    publish(3);
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    lane_.closed(403, "ACCESS_REFUSED", out_);
    expect(1, Verdict::delivered, Remedy::none);
    expect(2, Verdict::unknown, Remedy::retry);
    expect(3, Verdict::unknown, Remedy::retry);
    out_.clear();
    open();
    publish(2);
    EXPECT_FALSE(lane_.takes(1000, 1000));
    lane_.closed(403, "ACCESS_REFUSED", out_);
    expect(2, Verdict::refused, Remedy::forbidden);
    EXPECT_EQ(settlement(2).reason, "403 ACCESS_REFUSED: exchange 'x', routing key 'k'");
}

TEST_F(AmqpLane, TheMessageTooLargeIsBlamedByItsSize) {
    publish(1, 10);
    publish(2, 2000);
    publish(3, 20);
    lane_.closed(406, "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000", out_);
    expect(1, Verdict::unknown, Remedy::retry);
    expect(2, Verdict::refused, Remedy::park);
    expect(3, Verdict::unknown, Remedy::retry);
}

TEST_F(AmqpLane, TheCodeOfAClosedChannelDecidesTheRemedy) {
    const std::pair<unsigned, Remedy> codes[] = {
        {311, Remedy::park},  {406, Remedy::park},    {403, Remedy::forbidden}, {404, Remedy::forbidden},
        {405, Remedy::retry}, {504, Remedy::unclear}, {541, Remedy::unclear},   {999, Remedy::unclear}};
    for (const auto& [code, remedy] : codes) {
        out_.clear();
        publish(1);
        lane_.closed(code, "WORDS", out_);
        expect(1, Verdict::refused, remedy);
        EXPECT_EQ(settlement(1).reason, std::to_string(code) + " WORDS: exchange 'x', routing key 'k'");
        open();
    }
}

TEST_F(AmqpLane, WhoCannotBeBlamedGoesOneByOne) {
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) publish(ticket);
    lane_.closed(406, "PRECONDITION_FAILED - something about one of them", out_);
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) expect(ticket, Verdict::unknown, Remedy::retry);
    out_.clear();

    open();
    ASSERT_TRUE(lane_.takes(1000, 1 << 20));
    publish(1);
    EXPECT_FALSE(lane_.takes(1000, 1 << 20)) << "alone";
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
    ASSERT_TRUE(lane_.takes(1000, 1 << 20));
    publish(2);
    lane_.closed(406, "PRECONDITION_FAILED - something about one of them", out_);
    expect(2, Verdict::refused, Remedy::park);
    open();
    publish(3);
    EXPECT_FALSE(lane_.takes(1000, 1 << 20));
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(3, Verdict::delivered, Remedy::none);
    publish(4);
    EXPECT_TRUE(lane_.takes(1000, 1 << 20)) << "all suspects have passed";
}

TEST_F(AmqpLane, WhatIsNeverConfirmedIsGivenUpAndNothingElse) {
    using std::chrono::seconds;
    EXPECT_EQ(lane_.waits_since(), TimePoint::max());
    for (std::uint64_t ticket = 1; ticket <= 5; ++ticket) {
        now_ += seconds(1);
        publish(ticket);
    }
    EXPECT_EQ(lane_.waits_since(), TimePoint{} + seconds(1));
    ASSERT_TRUE(lane_.confirm(2, false, true, out_));
    lane_.give_up(TimePoint{} + seconds(3), "no acknowledgement", out_);
    expect(1, Verdict::refused, Remedy::retry);
    expect(2, Verdict::delivered, Remedy::none);
    expect(3, Verdict::refused, Remedy::retry);
    EXPECT_EQ(settlement(3).reason, "no acknowledgement: exchange 'x', routing key 'k'");
    EXPECT_EQ(out_.size(), 3u);
    EXPECT_EQ(lane_.waits_since(), TimePoint{} + seconds(4));
    publish(1);  // again, with another tag
    ASSERT_TRUE(lane_.confirm(1, false, true, out_)) << "late words are not listened to";
    EXPECT_EQ(out_.size(), 3u);
    out_.clear();
    ASSERT_TRUE(lane_.confirm(6, true, true, out_));
    for (std::uint64_t ticket : {4, 5, 1}) expect(ticket, Verdict::delivered, Remedy::none);
    EXPECT_TRUE(lane_.idle());
    EXPECT_EQ(lane_.waits_since(), TimePoint::max());
}

TEST_F(AmqpLane, TagsStartAnewWithTheChannel) {
    publish(1);
    lane_.lost("gone", out_);
    EXPECT_TRUE(lane_.idle());
    lane_.opened(2, now_);
    publish(2);
    EXPECT_FALSE(lane_.confirm(2, false, true, out_)) << "a tag never sent";
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(1, Verdict::unknown, Remedy::retry);
    expect(2, Verdict::delivered, Remedy::none);
    ASSERT_TRUE(lane_.confirm(1, true, true, out_)) << "said before";
    EXPECT_EQ(out_.size(), 2u);
}

TEST_F(AmqpLane, ReturnsMeetTheirTicketByTheMessageId) {
    publish(1);
    publish(2);
    publish_event(3, {0, 2});  // the same event by another ticket
    ASSERT_TRUE(lane_.return_started(312, "NO_ROUTE", "x", "k"));
    EXPECT_FALSE(lane_.return_started(312, "NO_ROUTE", "x", "k")) << "one at a time";
    ASSERT_TRUE(lane_.return_header("2", 10));
    EXPECT_FALSE(lane_.return_header("2", 10));
    EXPECT_TRUE(lane_.return_body(6));
    EXPECT_FALSE(lane_.return_body(5)) << "more than was announced";
    EXPECT_TRUE(lane_.return_body(4));
    ASSERT_TRUE(lane_.return_started(312, "NO_ROUTE EITHER", "x", "k"));
    ASSERT_TRUE(lane_.return_header("2", 0));
    ASSERT_TRUE(lane_.confirm(3, true, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
    expect(2, Verdict::refused, Remedy::park);
    expect(3, Verdict::refused, Remedy::park);
    EXPECT_EQ(settlement(3).reason, "312 NO_ROUTE EITHER: exchange 'x', routing key 'k'");
}

TEST_F(AmqpLane, AReturnThroughTheDefaultExchangeSaysThatThereIsNoQueue) {
    publish(1);
    ASSERT_TRUE(lane_.return_started(312, "NO_ROUTE", "", "search"));
    ASSERT_TRUE(lane_.return_header("1", 0));
    ASSERT_TRUE(lane_.confirm(1, true, true, out_));
    expect(1, Verdict::refused, Remedy::park);
    EXPECT_EQ(settlement(1).reason,
              "312 NO_ROUTE: exchange '', routing key 'search'; there is no such queue, declare it");
}

TEST_F(AmqpLane, AQueueThatIsMissingHoldsTheRouteThatNamesIt) {
    const EventId ids[] = {{0, 1}, {0, 2}, {0, 3}};
    publish_event(1, ids[0], 10, {"", "search", false, true});
    publish_event(2, ids[1], 10, {"", "made.of.the.event"});
    publish_event(3, ids[2], 10, {"", "search", false, true});
    for (const char* message : {"1", "3"}) {
        ASSERT_TRUE(lane_.return_started(312, "NO_ROUTE", "", "search"));
        ASSERT_TRUE(lane_.return_header(message, 0));
    }
    ASSERT_TRUE(lane_.return_started(312, "NO_ROUTE", "", "made.of.the.event"));
    ASSERT_TRUE(lane_.return_header("2", 0));
    ASSERT_TRUE(lane_.confirm(3, true, true, out_));
    expect(1, Verdict::refused, Remedy::fix_settings);
    expect(2, Verdict::refused, Remedy::park);
    expect(3, Verdict::refused, Remedy::fix_settings);
    out_.clear();
    publish_event(4, {0, 4}, 10, {"", "search", false, true});
    ASSERT_TRUE(lane_.return_started(311, "CONTENT_TOO_LARGE", "", "search"));
    ASSERT_TRUE(lane_.return_header("4", 0));
    ASSERT_TRUE(lane_.confirm(4, false, true, out_));
    expect(4, Verdict::refused, Remedy::park);
}

TEST_F(AmqpLane, ReturnsOfEventsFromTheWalMeetTheirTicket) {
    const EventId ids[] = {{0x16B3748, 3}, {0x16B3748, 4}, {(1ull << 32) | 0xFFFFFFFF, 1}, {0, 3}};
    for (std::uint64_t ticket = 1; ticket <= 4; ++ticket) publish_event(ticket, ids[ticket - 1]);
    ASSERT_TRUE(give_back("0/16B3748-4"));
    ASSERT_TRUE(give_back("1/FFFFFFFF-1"));
    ASSERT_TRUE(lane_.confirm(4, true, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
    expect(2, Verdict::refused, Remedy::park);
    expect(3, Verdict::refused, Remedy::park);
    expect(4, Verdict::delivered, Remedy::none);
}

// One event on several routes that share a channel, or under two names.
TEST_F(AmqpLane, ReturnsOfOneEventMeetTheAddressThatTheyName) {
    publish_event(1, {0, 7}, 10, {"x", "a"});
    publish_event(2, {0, 7}, 10, {"x", "b"});
    publish_event(3, {0, 7}, 10, {"x", "a"});
    ASSERT_TRUE(give_back("7", "b"));
    ASSERT_TRUE(give_back("7", "a")) << "returns come in the order of publishing: it is the third one";
    ASSERT_TRUE(lane_.confirm(3, true, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
    expect(2, Verdict::refused, Remedy::park);
    expect(3, Verdict::refused, Remedy::park);
}

TEST_F(AmqpLane, AReturnWithoutOurIdMeetsTheOnlyTicketOfItsAddress) {
    publish(1, 10, "x", "a");
    publish(2, 10, "x", "b");
    publish(3, 10, "x", "b");
    ASSERT_TRUE(give_back("somebody else's", "a"));
    EXPECT_FALSE(give_back("", "b")) << "it may be the second or the third";
    lane_.distrusted("of nothing that we sent", out_);
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) expect(ticket, Verdict::unknown, Remedy::retry);
    out_.clear();
    open();
    publish(2, 10, "x", "b");
    EXPECT_FALSE(lane_.takes(1000, 1000)) << "one at a time";
    ASSERT_TRUE(give_back("", "whatever"));
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(2, Verdict::refused, Remedy::park);
}

TEST_F(AmqpLane, WhatFitsNothingWhileOneIsAloneIsThatOnesTrouble) {
    publish(1);
    EXPECT_FALSE(lane_.confirm(2, false, true, out_));
    lane_.distrusted("of nothing that we sent", out_);
    expect(1, Verdict::refused, Remedy::unclear);
    EXPECT_EQ(settlement(1).reason, "of nothing that we sent: exchange 'x', routing key 'k'");
    EXPECT_EQ(lane_.channel, 0);
}

TEST_F(AmqpLane, AReturnOfAKindNeverSeenIsNoDeadLetterByItself) {
    const std::pair<unsigned, Remedy> codes[] = {
        {312, Remedy::park}, {311, Remedy::park}, {313, Remedy::unclear}, {599, Remedy::unclear}};
    std::uint64_t ticket = 0;
    for (const auto& [code, remedy] : codes) {
        publish(++ticket);
        ASSERT_TRUE(give_back(std::to_string(ticket), "k", code));
        ASSERT_TRUE(lane_.confirm(ticket, false, true, out_));
        expect(ticket, Verdict::refused, remedy);
    }
}

TEST_F(AmqpLane, ContentThatBelongsToNothingIsPassedOver) {
    publish(1);
    EXPECT_TRUE(lane_.return_header("1", 1000));
    EXPECT_TRUE(lane_.return_body(600));
    EXPECT_TRUE(lane_.return_body(600));
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
}

// A broker that was frozen answers all at once, also what was offered again meanwhile.
TEST_F(AmqpLane, ALateReturnIsOfTheOneThatWasGivenUp) {
    using std::chrono::seconds;
    publish_event(1, {0, 1});
    now_ += seconds(1);
    lane_.give_up(now_, "no acknowledgement", out_);
    expect(1, Verdict::refused, Remedy::retry);
    publish_event(2, {0, 1});
    ASSERT_TRUE(give_back("1"));
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    ASSERT_TRUE(lane_.confirm(2, false, true, out_));
    expect(2, Verdict::delivered, Remedy::none);
    publish_event(3, {0, 1});
    now_ += seconds(1);
    lane_.give_up(now_, "no acknowledgement", out_);
    ASSERT_TRUE(give_back("1")) << "nothing else is open";
}

TEST_F(AmqpLane, WhatIsNeverAnsweredCostsNoMemoryBehindIt) {
    publish(1);
    for (std::uint64_t ticket = 2; ticket <= 50'000; ++ticket) {
        now_ += std::chrono::milliseconds(1);
        publish(ticket);
        ASSERT_TRUE(lane_.confirm(ticket, false, true, out_));
    }
    EXPECT_EQ(out_.size(), 49'999u);
    EXPECT_EQ(lane_.waits_since(), TimePoint{});
    EXPECT_LE(lane_.remembered(), 10'000u);
    out_.clear();
    ASSERT_TRUE(give_back("1"));
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(1, Verdict::refused, Remedy::park);
    EXPECT_TRUE(lane_.idle());
    EXPECT_EQ(lane_.waits_since(), TimePoint::max());
}

TEST_F(AmqpLane, AnotherLaneGoesOnWhereTheChannelStands) {
    publish(1);
    publish(2);
    ASSERT_TRUE(lane_.confirm(2, true, true, out_));
    Lane other;
    other.take_channel(lane_, now_);
    EXPECT_EQ(lane_.channel, 0);
    EXPECT_FALSE(lane_.takes(1000, 1000));
    EXPECT_EQ(other.channel, 1);
    ASSERT_TRUE(other.takes(1000, 1000));
    other.published(3, {0, 3}, 10, {"x", "k"}, now_);
    EXPECT_TRUE(other.confirm(1, true, true, out_)) << "said before";
    EXPECT_FALSE(other.idle());
    EXPECT_TRUE(other.confirm(3, false, true, out_));
    expect(3, Verdict::delivered, Remedy::none);
    EXPECT_FALSE(other.confirm(4, false, true, out_)) << "never sent";
}

}  // namespace
}  // namespace eventbus::broker::amqp
