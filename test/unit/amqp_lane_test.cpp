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
    AmqpLane() { lane_.opened(1); }
    void publish(std::uint64_t ticket, std::size_t payload = 10, std::string_view exchange = "x") {
        lane_.published(ticket, static_cast<std::int64_t>(ticket), payload, exchange, now_);
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
    EXPECT_TRUE(lane_.takes(1000, 1000)) << "nobody goes one by one for a missing exchange";
}

TEST_F(AmqpLane, WithoutANameTheOldestOpenOneIsBlamed) {
    publish(1);
    publish(2);
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    lane_.closed(403, "ACCESS_REFUSED", out_);
    expect(1, Verdict::delivered, Remedy::none);
    expect(2, Verdict::refused, Remedy::fix_settings);
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
        {311, Remedy::park},  {406, Remedy::park},  {403, Remedy::fix_settings}, {404, Remedy::fix_settings},
        {405, Remedy::retry}, {504, Remedy::retry}, {541, Remedy::retry}};
    for (const auto& [code, remedy] : codes) {
        out_.clear();
        publish(1);
        lane_.closed(code, "WORDS", out_);
        expect(1, Verdict::refused, remedy);
        EXPECT_EQ(settlement(1).reason, std::to_string(code) + " WORDS");
        lane_.opened(1);
    }
}

TEST_F(AmqpLane, WhoCannotBeBlamedGoesOneByOne) {
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) publish(ticket);
    lane_.closed(406, "PRECONDITION_FAILED - something about one of them", out_);
    for (std::uint64_t ticket = 1; ticket <= 3; ++ticket) expect(ticket, Verdict::unknown, Remedy::retry);
    out_.clear();

    lane_.opened(1);
    ASSERT_TRUE(lane_.takes(1000, 1 << 20));
    publish(1);
    EXPECT_FALSE(lane_.takes(1000, 1 << 20)) << "alone";
    ASSERT_TRUE(lane_.confirm(1, false, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
    ASSERT_TRUE(lane_.takes(1000, 1 << 20));
    publish(2);
    lane_.closed(406, "PRECONDITION_FAILED - something about one of them", out_);
    expect(2, Verdict::refused, Remedy::park);
    lane_.opened(1);
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
    EXPECT_EQ(settlement(3).reason, "no acknowledgement");
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
    lane_.opened(2);
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
    lane_.published(3, 2, 10, "x", now_);  // the same event by another ticket
    ASSERT_TRUE(lane_.return_started("no route"));
    EXPECT_FALSE(lane_.return_started("no route")) << "one at a time";
    ASSERT_TRUE(lane_.return_header("2", 10));
    EXPECT_FALSE(lane_.return_header("2", 10));
    EXPECT_TRUE(lane_.return_body(6));
    EXPECT_FALSE(lane_.return_body(5)) << "more than was announced";
    EXPECT_TRUE(lane_.return_body(4));
    EXPECT_FALSE(lane_.return_body(0)) << "it is complete";
    ASSERT_TRUE(lane_.return_started("no route either"));
    ASSERT_TRUE(lane_.return_header("2", 0));
    ASSERT_TRUE(lane_.return_started("whose?"));
    EXPECT_FALSE(lane_.return_header("2", 0)) << "all tickets of event 2 have been returned";
    EXPECT_FALSE(lane_.return_header("x", 0));
    ASSERT_TRUE(lane_.confirm(3, true, true, out_));
    expect(1, Verdict::delivered, Remedy::none);
    expect(2, Verdict::refused, Remedy::park);
    expect(3, Verdict::refused, Remedy::park);
    EXPECT_EQ(settlement(3).reason, "no route either");
}

}  // namespace
}  // namespace eventbus::broker::amqp
