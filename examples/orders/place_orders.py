from shop import SoldOut, connect, gator, order

with connect() as connection:
    connection.execute("INSERT OR REPLACE INTO stock VALUES ('hat', 2)")

for number in (1, 2, 3):
    try:
        order("hat")
    except SoldOut:
        print(f"Order {number}: rolled back, there is no hat left.", end=" ")
    else:
        print(f"Order {number}: committed.", end=" ")
    [(orders,)] = connection.execute("SELECT count(*) FROM orders")
    print(f"Orders: {orders}. Tasks: {gator.len()}.")
connection.close()
